//go:build !unix

package restrict

// Umask does nothing on systems without a umask.
func Umask() {}
