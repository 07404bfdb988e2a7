// Package clean gives Bloblang the methods by which a mapping cleans customer
// data: `this.traits.email.clean_email()`. What they do is in package value
// below; this one gives it names, parameters and documentation. Every example of
// a method is run by a test.
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
	_ "time/tzdata" // zones are known where the machine has no data of them

	"github.com/redpanda-data/benthos/v4/public/bloblang"

	"github.com/connect-personalize/connect-personalize/plugins/engine/cleaning"
)

const category = "Cleaning"

// method is a method and how to make it with given arguments. The parts that
// are the same for every value, such as patterns, are made once.
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

// text is a method that makes one text of another.
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

// textOf takes numbers for the text that they are written as: phone numbers and
// article numbers arrive as either. The error shows no value.
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

// texts reads a parameter that is a list of text.
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
		return o, fmt.Errorf("order: write dmy, mdy, or nothing to refuse dates that could be either")
	}
	o.Layouts, err = texts(args, "layouts")
	return o, err
}

// zones are those that were read: an argument that is a query is one anew for
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

// pseudonyms is the Pseudonym of a key that is read when it is first needed, so
// that a config can be linted where the key is not.
type pseudonyms struct {
	env string
	of  atomic.Pointer[cleaning.Pseudonym]
}

func (p *pseudonyms) get() (*cleaning.Pseudonym, error) {
	if known := p.of.Load(); known != nil {
		return known, nil
	}
	key := os.Getenv(p.env)
	if key == "" {
		return nil, fmt.Errorf("the key is missing: set the environment variable %s, for example to what `openssl rand -hex 32` prints", p.env)
	}
	made, err := cleaning.NewPseudonym([]byte(key))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.env, err)
	}
	p.of.Store(made)
	return made, nil
}
