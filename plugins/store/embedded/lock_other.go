//go:build !unix

package embedded

import "os"

// A file that exists and cannot be opened is locked.
func isLocked(err error) bool { return !os.IsPermission(err) }
