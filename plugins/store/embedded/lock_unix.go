//go:build unix

package embedded

import (
	"errors"
	"syscall"
)

func isLocked(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES)
}
