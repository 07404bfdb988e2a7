package customers

import (
	"fmt"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// The limits on traits keep an event source, such as a public key of a website, from
// making a profile arbitrarily large. An event that exceeds one is rejected as a
// whole.

// checkTraits returns an *event.Error if a trait is above the limits of size.
func (u *updater) checkTraits(traits []traitUpdate) error {
	limits := &u.p.def.Traits
	for i := range traits {
		switch {
		case limits.NameSize > 0 && len(traits[i].name) > limits.NameSize:
			return limitError("the name of a trait has %d bytes, more than traits.max_name_bytes (%d)", len(traits[i].name), limits.NameSize)
		case limits.ValueSize > 0 && len(traits[i].value.Text) > limits.ValueSize:
			return limitError("the value of a trait has %d bytes, more than traits.max_value_bytes (%d)", len(traits[i].value.Text), limits.ValueSize)
		}
	}
	return nil
}

// checkTraitCount returns an *event.Error if an event would give a customer too many
// traits.
func (u *updater) checkTraitCount(up *update, c *customer) error {
	limit := u.p.def.Traits.Count
	if up.traits == 0 || limit == 0 {
		return nil
	}
	names := make([][]byte, up.traits)
	for i := range names {
		names[i] = u.traits[up.firstOf+i].name
	}
	n, err := c.rec.TraitCountWith(names)
	if err != nil {
		c.err = err
		return err
	}
	if n > limit {
		return limitError("the customer would have %d traits, more than traits.max_traits (%d)", n, limit)
	}
	return nil
}

func limitError(format string, args ...any) error {
	return &event.Error{Pointer: "/traits", Rule: "limit", Message: fmt.Sprintf(format, args...)}
}
