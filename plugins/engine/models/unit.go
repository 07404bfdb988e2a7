package models

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"
)

const (
	day     = 24 * time.Hour
	maxUnit = 3660 * day
)

var unitForm = regexp.MustCompile(`^([1-9][0-9]{0,5})(d|h)$`)

// ParseUnit parses a unit of time: a whole number of days or hours, such as 7d.
func ParseUnit(s string) (time.Duration, error) {
	parts := unitForm.FindStringSubmatch(s)
	if parts == nil {
		return 0, errors.New("a time unit is a whole number of days or hours: write 7d for weeks, 1d for days")
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0, err
	}
	unit := time.Duration(n) * time.Hour
	if parts[2] == "d" {
		unit = time.Duration(n) * day
	}
	return unit, validUnit(unit)
}

// FormatUnit formats a unit of time. ParseUnit is its inverse.
func FormatUnit(unit time.Duration) string {
	if unit%day == 0 {
		return fmt.Sprintf("%dd", unit/day)
	}
	return fmt.Sprintf("%dh", unit/time.Hour)
}

func validUnit(unit time.Duration) error {
	if unit < time.Hour || unit > maxUnit || unit%time.Hour != 0 {
		return errors.New("the time unit must be from 1h to 3660d: write 7d for weeks")
	}
	return nil
}

// number formats a number for messages and files.
func number(v float64) string {
	if v == 0 || math.Abs(v) >= 1e-9 && math.Abs(v) < 1e21 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
