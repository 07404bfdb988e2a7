package cleaning

import (
	"errors"
	"strings"

	"github.com/nyaruka/phonenumbers"
)

// Faults of a phone number.
var (
	errPhone         = &Fault{"phone", "is not a phone number"}
	errPhoneCountry  = &Fault{"phone_country", "has no country code; set the region of numbers without one, such as DE"}
	errPhoneCode     = &Fault{"phone_country_code", "has a country code that does not exist"}
	errPhoneShort    = &Fault{"phone_short", "has too few digits for its country"}
	errPhoneLong     = &Fault{"phone_long", "has too many digits for its country"}
	errPhoneInvalid  = &Fault{"phone_invalid", "is not assigned by the numbering plan of its country"}
	errPhoneRegion   = &Fault{"region", "the region must be an ISO 3166 code of two letters, such as DE"}
	errPhoneNoDigits = &Fault{"phone", "has no digits"}
)

// Phone returns a number in E.164 format, such as +4930123456. A number without a
// country code belongs to region, an ISO 3166 code of two letters; if region is
// empty, such a number is a fault. Extensions are removed: E.164 has none.
func Phone(s, region string) (string, error) {
	if len(s) > maxLength {
		return "", errLong
	}
	s = asciiDigits(Text(s, TextOptions{}))
	if len(s) >= 4 && strings.EqualFold(s[:4], "tel:") {
		s = s[4:]
	}
	if s == "" {
		return "", errEmpty
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return r >= '0' && r <= '9' }) {
		return "", errPhoneNoDigits
	}
	region = strings.ToUpper(region)
	if region != "" && phonenumbers.GetCountryCodeForRegion(region) == 0 {
		return "", errPhoneRegion
	}
	number, err := phonenumbers.Parse(s, region)
	switch {
	case err == nil:
	case errors.Is(err, phonenumbers.ErrInvalidCountryCode):
		// The library returns this error in both cases.
		if region == "" && !strings.HasPrefix(s, "+") {
			return "", errPhoneCountry
		}
		return "", errPhoneCode
	case errors.Is(err, phonenumbers.ErrTooShortNSN), errors.Is(err, phonenumbers.ErrTooShortAfterIDD):
		return "", errPhoneShort
	case errors.Is(err, phonenumbers.ErrNumTooLong):
		return "", errPhoneLong
	default:
		return "", errPhone
	}
	if !phonenumbers.IsValidNumber(number) {
		switch phonenumbers.IsPossibleNumberWithReason(number) {
		case phonenumbers.TOO_SHORT:
			return "", errPhoneShort
		case phonenumbers.TOO_LONG:
			return "", errPhoneLong
		case phonenumbers.INVALID_COUNTRY_CODE:
			return "", errPhoneCode
		}
		return "", errPhoneInvalid
	}
	return phonenumbers.Format(number, phonenumbers.E164), nil
}
