package trackingplan

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
)

// patternFault describes why a pattern cannot be used and what to write instead.
// Patterns of JSON Schema are in the syntax of ECMAScript; ours are in RE2, which has no
// construct that needs more than linear time.
func patternFault(err error) string {
	reason := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	fault, ok := errors.AsType[*syntax.Error](err)
	if !ok {
		return reason + "; write it in RE2 syntax"
	}
	return fmt.Sprintf("%s; %s", reason, re2Instead(fault))
}

func re2Instead(fault *syntax.Error) string {
	text := fault.Expr
	switch {
	case strings.HasPrefix(text, "(?=") || strings.HasPrefix(text, "(?!") || strings.HasPrefix(text, "(?<"):
		return "RE2 has no look-around: write the condition as a pattern of its own, for example under allOf"
	case strings.HasPrefix(text, "(?"):
		return "RE2 does not have this kind of group: write (?:...)"
	case fault.Code == syntax.ErrInvalidRepeatSize:
		return "RE2 repeats at most 1000 times: write minLength and maxLength instead"
	case fault.Code == syntax.ErrInvalidRepeatOp:
		return "RE2 has no possessive repeats: write a single *, + or ?"
	case strings.HasPrefix(text, `\p`) || strings.HasPrefix(text, `\P`):
		return `RE2 names classes of Unicode by their short name: write for example \p{L} or \p{Greek}`
	case len(text) >= 2 && text[0] == '\\' && text[1] >= '1' && text[1] <= '9', strings.HasPrefix(text, `\k`):
		return "RE2 has no back-references"
	case strings.HasPrefix(text, `\u`), strings.HasPrefix(text, `\c`), strings.HasPrefix(text, `\x`):
		return `write a character by its code, such as \x{41} for A`
	case fault.Code == syntax.ErrInvalidEscape:
		return `RE2 does not have this escape: write the character itself, or its code such as \x{41}`
	}
	return "write it in RE2 syntax"
}
