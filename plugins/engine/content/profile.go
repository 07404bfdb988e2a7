package content

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // the host may have no time zone database

	"github.com/valyala/fastjson"
	"gopkg.in/yaml.v2"
)

// Profile is a customer's profile as the variables of a template.
type Profile struct {
	ID               string
	Traits, Features yaml.MapSlice
	Segments         any
	AsOf, UpdatedAt  time.Time
}

var jsonParsers fastjson.ParserPool

// errProfile is the error for JSON that is not a profile.
var errProfile = errors.New("the profile is not a JSON object with id, traits, features, segments, as_of and updated_at, all of which are optional")

// maxDepth is the maximum depth of nested values of a profile.
const maxDepth = 40

// ReadProfile parses a profile in the format of the API. All members are optional;
// the default of as_of is now.
func ReadProfile(text []byte, now time.Time) (*Profile, error) {
	parser := jsonParsers.Get()
	defer jsonParsers.Put(parser)
	v, err := parser.ParseBytes(text)
	if err != nil || v.Type() != fastjson.TypeObject {
		return nil, errProfile
	}
	p := &Profile{AsOf: now}
	isValid := true
	object := func(v *fastjson.Value) yaml.MapSlice {
		m, ok := value(v, 0).(yaml.MapSlice)
		isValid = isValid && (ok || v.Type() == fastjson.TypeNull || v.Type() == fastjson.TypeObject)
		return m
	}
	instant := func(v *fastjson.Value, into *time.Time) {
		if v.Type() == fastjson.TypeNull {
			return
		}
		t, err := time.Parse(time.RFC3339Nano, string(v.GetStringBytes()))
		isValid = isValid && err == nil
		*into = t
	}
	v.GetObject().Visit(func(key []byte, v *fastjson.Value) {
		switch string(key) {
		case "id":
			isValid = isValid && v.Type() == fastjson.TypeString
			p.ID = string(v.GetStringBytes())
		case "traits":
			p.Traits = object(v)
		case "features":
			p.Features = object(v)
		case "segments":
			p.Segments = value(v, 0)
		case "as_of":
			instant(v, &p.AsOf)
		case "updated_at":
			instant(v, &p.UpdatedAt)
		case "features_since":
		default:
			// Members of later versions are ignored.
		}
	})
	if !isValid {
		return nil, errProfile
	}
	return p, nil
}

// value converts a JSON value to a value of templates. Null, and empty texts, lists
// and objects are missing: {% if traits.city %} is false for an empty text.
func value(v *fastjson.Value, depth int) any {
	if depth > maxDepth {
		return missing{}
	}
	switch v.Type() {
	case fastjson.TypeString:
		if s := strings.ToValidUTF8(string(v.GetStringBytes()), "\uFFFD"); strings.TrimSpace(s) != "" {
			return s
		}
	case fastjson.TypeNumber:
		return numberOf(string(v.MarshalTo(nil)))
	case fastjson.TypeTrue:
		return true
	case fastjson.TypeFalse:
		return false
	case fastjson.TypeArray:
		list := v.GetArray()
		if len(list) == 0 {
			return missing{}
		}
		out := make([]any, len(list))
		for i, item := range list {
			out[i] = value(item, depth+1)
		}
		return out
	case fastjson.TypeObject:
		object := v.GetObject()
		if object.Len() == 0 {
			return missing{}
		}
		out := make(yaml.MapSlice, 0, object.Len())
		object.Visit(func(key []byte, v *fastjson.Value) {
			out = append(out, yaml.MapItem{Key: string(key), Value: value(v, depth+1)})
		})
		return out
	}
	return missing{}
}

// numberOf converts a JSON number. An integer beyond int64 is a text, so that it
// keeps its digits.
func numberOf(s string) any {
	if integerForm.MatchString(s) {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n
		}
		return s
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return missing{}
	}
	return amount(f)
}

// variables returns the variables of the template.
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

// has reports whether the profile has a value for a name such as traits.city.
func (p *Profile) has(path string) bool {
	part, name, _ := strings.Cut(path, ".")
	switch part {
	case "traits":
		return !isNil(member(p.Traits, name))
	case "features":
		return !isNil(member(p.Features, name))
	case "segments":
		return !isNil(p.Segments)
	}
	return false
}

// withDefaults returns the profile with defaults for missing values.
func (p *Profile) withDefaults(traits, features yaml.MapSlice) *Profile {
	if len(traits) == 0 && len(features) == 0 {
		return p
	}
	filled := *p
	filled.Traits, filled.Features = fill(p.Traits, traits), fill(p.Features, features)
	return &filled
}

// fill adds defaults to an object. The object is not modified.
func fill(have, defaults yaml.MapSlice) yaml.MapSlice {
	out := have
	copied := false
	for _, d := range defaults {
		if !isNil(member(out, fmt.Sprint(d.Key))) {
			continue
		}
		if !copied {
			out, copied = append(yaml.MapSlice(nil), have...), true
		}
		index := -1
		for i := range out {
			if out[i].Key == d.Key {
				index = i
			}
		}
		if index >= 0 {
			out[index].Value = d.Value
		} else {
			out = append(out, d)
		}
	}
	return out
}

// zone returns the customer's time zone from the trait timezone. The default is UTC.
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
		// Not cached: the number of invalid names in traits is unlimited.
		return nil, errors.New("unknown time zone")
	}
	zones.Store(name, zone)
	return zone, nil
}
