package content

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // zones must be known on hosts without a zone database

	"github.com/valyala/fastjson"
	"gopkg.in/yaml.v2"
)

// Profile is a customer as a template sees it.
type Profile struct {
	ID               string
	Traits, Features yaml.MapSlice
	Segments         any
	AsOf, UpdatedAt  time.Time
}

var jsonParsers fastjson.ParserPool

// errProfile is all that is said of JSON that is no profile.
var errProfile = errors.New("the profile is not a JSON object with id, traits, features, segments, as_of and updated_at, all of which may be left away")

// maxDepth bounds how deep the values of a profile may be nested.
const maxDepth = 40

// ReadProfile reads a profile as the API serves it. What is missing in it is
// missing; as_of is now unless it is given.
func ReadProfile(text []byte, now time.Time) (*Profile, error) {
	parser := jsonParsers.Get()
	defer jsonParsers.Put(parser)
	v, err := parser.ParseBytes(text)
	if err != nil || v.Type() != fastjson.TypeObject {
		return nil, errProfile
	}
	p := &Profile{AsOf: now}
	good := true
	object := func(v *fastjson.Value) yaml.MapSlice {
		m, ok := value(v, 0).(yaml.MapSlice)
		good = good && (ok || v.Type() == fastjson.TypeNull || v.Type() == fastjson.TypeObject)
		return m
	}
	at := func(v *fastjson.Value, into *time.Time) {
		if v.Type() == fastjson.TypeNull {
			return
		}
		t, err := time.Parse(time.RFC3339Nano, string(v.GetStringBytes()))
		good = good && err == nil
		*into = t
	}
	v.GetObject().Visit(func(key []byte, v *fastjson.Value) {
		switch string(key) {
		case "id":
			good = good && v.Type() == fastjson.TypeString
			p.ID = string(v.GetStringBytes())
		case "traits":
			p.Traits = object(v)
		case "features":
			p.Features = object(v)
		case "segments":
			p.Segments = value(v, 0)
		case "as_of":
			at(v, &p.AsOf)
		case "updated_at":
			at(v, &p.UpdatedAt)
		case "features_since":
		default:
			// What a later version adds does no harm.
		}
	})
	if !good {
		return nil, errProfile
	}
	return p, nil
}

// value is a JSON value as templates see it. Empty texts, lists and objects
// are as good as missing: that is what whoever writes {% if %} means.
func value(v *fastjson.Value, depth int) any {
	if depth > maxDepth {
		return nil
	}
	switch v.Type() {
	case fastjson.TypeString:
		if s := strings.ToValidUTF8(string(v.GetStringBytes()), "\uFFFD"); strings.TrimSpace(s) != "" {
			return s
		}
	case fastjson.TypeNumber:
		f := v.GetFloat64()
		if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return int(f)
		}
		if !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f
		}
	case fastjson.TypeTrue:
		return true
	case fastjson.TypeFalse:
		return false
	case fastjson.TypeArray:
		list := v.GetArray()
		if len(list) == 0 {
			return nil
		}
		out := make([]any, len(list))
		for i, item := range list {
			out[i] = value(item, depth+1)
		}
		return out
	case fastjson.TypeObject:
		object := v.GetObject()
		if object.Len() == 0 {
			return nil
		}
		out := make(yaml.MapSlice, 0, object.Len())
		object.Visit(func(key []byte, v *fastjson.Value) {
			out = append(out, yaml.MapItem{Key: string(key), Value: value(v, depth+1)})
		})
		return out
	}
	return nil
}

// variables are what the template's names stand for.
func (p *Profile) variables() map[string]any {
	vars := map[string]any{"traits": p.Traits, "features": p.Features, "segments": p.Segments}
	if p.ID != "" {
		vars["id"] = p.ID
	}
	if !p.AsOf.IsZero() {
		vars["as_of"] = p.AsOf.UTC().Format("2006-01-02T15:04:05.000Z07:00")
	}
	if !p.UpdatedAt.IsZero() {
		vars["updated_at"] = p.UpdatedAt.UTC().Format("2006-01-02T15:04:05.000Z07:00")
	}
	return vars
}

// get returns what the profile has by a name such as traits.firstName.
func (p *Profile) get(path string) any {
	part, name, _ := strings.Cut(path, ".")
	switch part {
	case "traits":
		return member(p.Traits, name)
	case "features":
		return member(p.Features, name)
	case "segments":
		if p.Segments == nil {
			return nil
		}
		return p.Segments
	}
	return nil
}

// withDefaults is the profile with the values of others where it has none.
func (p *Profile) withDefaults(traits, features yaml.MapSlice) *Profile {
	if len(traits) == 0 && len(features) == 0 {
		return p
	}
	filled := *p
	filled.Traits, filled.Features = fill(p.Traits, traits), fill(p.Features, features)
	return &filled
}

func fill(have, defaults yaml.MapSlice) yaml.MapSlice {
	out := have
	copied := false
	for _, d := range defaults {
		if member(out, fmt.Sprint(d.Key)) != nil {
			continue
		}
		if !copied {
			out, copied = append(yaml.MapSlice(nil), have...), true
		}
		at := -1
		for i := range out {
			if out[i].Key == d.Key {
				at = i
			}
		}
		if at >= 0 {
			out[at].Value = d.Value
		} else {
			out = append(out, d)
		}
	}
	return out
}

// zone is the customer's time zone by the trait timezone, UTC without one.
func (p *Profile) zone() *time.Location {
	if name, ok := member(p.Traits, "timezone").(string); ok {
		if zone, err := loadZone(name); err == nil {
			return zone
		}
	}
	return time.UTC
}

var zones sync.Map

func loadZone(name string) (*time.Location, error) {
	if zone, ok := zones.Load(name); ok {
		return zone.(*time.Location), nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" || name == "" {
		// Not cached: traits can hold any number of names that are none.
		return nil, errors.New("unknown time zone")
	}
	zones.Store(name, zone)
	return zone, nil
}
