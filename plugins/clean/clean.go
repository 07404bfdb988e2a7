// Package clean registers the Bloblang methods that clean customer data, such as
// `this.traits.email.clean_email()`. Package cleaning implements them; this package
// defines their names, parameters and documentation. A test runs every example.
package clean

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	_ "time/tzdata" // the host may have no time zone database

	"github.com/redpanda-data/benthos/v4/public/bloblang"

	"github.com/connect-personalize/connect-personalize/plugins/engine/cleaning"
)

const category = "Cleaning"

// method is a Bloblang method and its constructor. The constructor prepares once
// what does not depend on the value, such as regular expressions.
type method struct {
	name string
	spec *bloblang.PluginSpec
	make func(args *bloblang.ParsedParams) (func(v any) (any, error), error)
}

func init() {
	for _, m := range methods() {
		spec := m.spec.Category(category).Version("0.1.0")
		err := bloblang.RegisterMethodV2(m.name, spec, func(args *bloblang.ParsedParams) (bloblang.Method, error) {
			apply, err := m.make(args)
			if err != nil {
				return nil, err
			}
			return apply, nil
		})
		if err != nil {
			panic(err)
		}
	}
}

// text returns a method that applies clean to a text.
func text(clean func(string) (string, error)) func(any) (any, error) {
	return func(v any) (any, error) {
		s, err := textOf(v)
		if err != nil {
			return nil, err
		}
		cleaned, err := clean(s)
		if err != nil {
			return nil, err
		}
		return cleaned, nil
	}
}

var errNoText = errors.New("must be text or a number")

// textOf returns the text of a text or number: phone numbers and article numbers
// arrive as both. The error contains no part of the value.
func textOf(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case []byte:
		return string(v), nil
	case json.Number:
		return v.String(), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case int:
		return strconv.Itoa(v), nil
	case uint64:
		return strconv.FormatUint(v, 10), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case time.Time:
		return v.Format(time.RFC3339Nano), nil
	}
	return "", errNoText
}

// texts returns the value of a parameter that is a list of texts.
func texts(args *bloblang.ParsedParams, name string) ([]string, error) {
	v, err := args.Get(name)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%s must be a list of text, such as [\"one\", \"two\"]", name)
	}
	all := make([]string, len(list))
	for i, item := range list {
		if all[i], ok = item.(string); !ok {
			return nil, fmt.Errorf("%s must be a list of text, such as [\"one\", \"two\"]", name)
		}
	}
	return all, nil
}

func timeOptions(args *bloblang.ParsedParams, zoned bool) (o cleaning.TimeOptions, err error) {
	if zoned {
		zone, err := args.GetString("zone")
		if err != nil {
			return o, err
		}
		if o.Zone, err = location(zone); err != nil {
			return o, fmt.Errorf("zone: %q is not known; write one such as Europe/Berlin", zone)
		}
	}
	if o.Order, err = args.GetString("order"); err != nil {
		return o, err
	}
	if !slices.Contains([]string{"", "dmy", "mdy"}, o.Order) {
		return o, fmt.Errorf("order: write dmy, mdy, or leave it empty to reject ambiguous dates")
	}
	o.Layouts, err = texts(args, "layouts")
	return o, err
}

// zones caches loaded time zones, because a dynamic argument is evaluated for
// every value.
var zones sync.Map

func location(name string) (*time.Location, error) {
	if known, ok := zones.Load(name); ok {
		return known.(*time.Location), nil
	}
	zone, err := time.LoadLocation(name)
	if err == nil {
		zones.Store(name, zone)
	}
	return zone, err
}

// pseudonyms reads its key on first use, so that a config can be linted without
// the key.
type pseudonyms struct {
	env    string
	loaded atomic.Pointer[cleaning.Pseudonym]
}

func (p *pseudonyms) get() (*cleaning.Pseudonym, error) {
	if known := p.loaded.Load(); known != nil {
		return known, nil
	}
	key := os.Getenv(p.env)
	if key == "" {
		return nil, fmt.Errorf("the key is missing: set the environment variable %s, for example to the output of `openssl rand -hex 32`", p.env)
	}
	made, err := cleaning.NewPseudonym([]byte(key))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.env, err)
	}
	p.loaded.Store(made)
	return made, nil
}
