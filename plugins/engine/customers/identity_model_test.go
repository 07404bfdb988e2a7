package customers

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// identityModel is a second implementation of identity resolution, written from
// the description of the fields. Its keys are those of records.
type identityModel struct {
	maxMerged, maxShared int
	mergeKnown           bool

	owner     map[string]string          // of a merged key
	exists    map[string]bool            // keys with an accepted event or an owner
	seenWith  map[string]map[string]bool // customers of a merged key besides its owner
	anonymous map[string]int             // number of anonymous ids merged into a key
	revenue   map[string]float64
}

func (m *identityModel) customer(key string) string {
	for m.owner[key] != "" {
		key = m.owner[key]
	}
	return key
}

func (m *identityModel) isShared(key string) bool {
	return m.maxShared > 0 && len(m.seenWith[key]) >= m.maxShared
}

func (m *identityModel) merge(into, key string) {
	isAnonymous := key[0] == 'a'
	switch {
	case m.customer(key) == into:
	case m.owner[key] != "":
		if m.seenWith[key] == nil {
			m.seenWith[key] = map[string]bool{}
		}
		if !m.isShared(key) {
			m.seenWith[key][into] = true
		}
	case isAnonymous && m.maxMerged > 0 && m.anonymous[into] >= m.maxMerged:
	default:
		m.owner[key], m.exists[key] = into, true
		m.revenue[into] += m.revenue[key]
		m.anonymous[into] += m.anonymous[key]
		if isAnonymous {
			m.anonymous[into]++
		}
	}
}

func (m *identityModel) order(key string, total float64) {
	if !m.isShared(key) {
		m.exists[m.customer(key)] = true
		m.revenue[m.customer(key)] += total
	}
}

func (m *identityModel) identify(user, device string) {
	into := m.customer("u" + user)
	m.merge(into, "a"+device)
	m.exists[into] = true
}

func (m *identityModel) alias(user, previous string) {
	into := m.customer("u" + user)
	known, anonymous := "u"+previous, "a"+previous
	isKnown := m.exists[known]
	if !isKnown || m.exists[anonymous] {
		m.merge(into, anonymous)
	}
	if m.mergeKnown && (isKnown || m.customer(anonymous) == into) {
		m.merge(into, known)
	}
	m.exists[into] = true
}

// read returns the revenue of the customer with an id, a userId before an
// anonymousId.
func (m *identityModel) read(id string) float64 {
	for _, key := range []string{"u" + id, "a" + id} {
		if m.exists[key] {
			return m.revenue[m.customer(key)]
		}
	}
	return 0
}

// TestIdentityEqualsModel applies random events one after the other, with every
// combination of max_merged, max_shared and merge_known.
func TestIdentityEqualsModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := identityModel{
			maxMerged: rapid.IntRange(0, 2).Draw(r, "max_merged"), maxShared: rapid.IntRange(0, 2).Draw(r, "max_shared"), mergeKnown: rapid.Bool().Draw(r, "merge_known"),
			owner: map[string]string{}, exists: map[string]bool{}, seenWith: map[string]map[string]bool{}, anonymous: map[string]int{}, revenue: map[string]float64{},
		}
		p := open(t, shop+fmt.Sprintf("identity: { max_merged: %d, max_shared: %d, merge_known: %v }\n", m.maxMerged, m.maxShared, m.mergeKnown))
		users, devices := []string{"x1", "x2", "x3", "both"}, []string{"d1", "d2", "d3", "both"}
		ids := append([]string{"d1", "d2", "d3"}, users...)
		for i := range rapid.IntRange(1, 25).Draw(r, "events") {
			user, device := rapid.SampledFrom(users).Draw(r, "user"), rapid.SampledFrom(devices).Draw(r, "device")
			id, total := fmt.Sprint("m", i), math.Pow(2, float64(i))
			switch rapid.IntRange(0, 4).Draw(r, "kind") {
			case 0:
				apply(t, p, order(id, fmt.Sprintf(`"userId":%q`, user), total))
				m.order("u"+user, total)
			case 1:
				apply(t, p, order(id, fmt.Sprintf(`"anonymousId":%q`, device), total))
				m.order("a"+device, total)
			case 2, 3:
				apply(t, p, identify(id, user, device, "2026-01-02T03:04:06Z", "web", `{}`))
				m.identify(user, device)
			case 4:
				previous := rapid.SampledFrom(ids).Draw(r, "previous")
				apply(t, p, alias(id, user, previous))
				m.alias(user, previous)
			}
			for _, id := range ids {
				v, _ := read(t, p, id)
				revenue, _ := v.Features["revenue"].(float64)
				require.Equal(r, m.read(id), revenue, "%s after event %d", id, i)
			}
		}
	})
}
