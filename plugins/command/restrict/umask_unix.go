//go:build unix

package restrict

import "syscall"

// Umask makes all files of the process readable by its user only: dead letters, exports
// and logs contain personal data.
func Umask() { syscall.Umask(0o077) }
