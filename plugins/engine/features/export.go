package features

import (
	"slices"
	"strconv"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
)

// AppendJSON appends a readable form of the tiles as a JSON array, for the
// export of a customer's data: one object per time span with its aggregates.
func (t *Tiles) AppendJSON(dst []byte) []byte {
	dst = append(dst, '[')
	for i, s := range t.list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = s.appendJSON(dst)
	}
	return append(dst, ']')
}

func (s *summary) appendJSON(dst []byte) []byte {
	dst = append(dst, `{"from":"`...)
	dst = event.AppendTime(dst, s.first)
	dst = append(dst, `","to":"`...)
	dst = event.AppendTime(dst, s.last)
	dst = append(dst, `","count":`...)
	dst = strconv.AppendInt(dst, int64(s.count), 10)
	if s.parts&partNumbers != 0 && s.numbers > 0 {
		dst = append(dst, `,"numbers":`...)
		dst = strconv.AppendInt(dst, int64(s.numbers), 10)
		dst = appendNumber(append(dst, `,"sum":`...), s.sum.value())
		dst = appendNumber(append(dst, `,"min":`...), s.least)
		dst = appendNumber(append(dst, `,"max":`...), s.most)
	}
	if s.parts&partEnds != 0 {
		dst = AppendJSON(append(dst, `,"first":`...), s.firstValue.value)
		dst = AppendJSON(append(dst, `,"last":`...), s.lastValue.value)
	}
	if s.parts&partRecent != 0 {
		dst = append(dst, `,"recent":[`...)
		for i := range s.recent {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = AppendJSON(dst, s.recent[i].value)
		}
		dst = append(dst, ']')
	}
	if s.parts&partDistinct != 0 {
		dst = append(dst, `,"distinct":`...)
		dst = appendNumber(dst, s.distinct.estimate())
	}
	if s.parts&partDays != 0 {
		dst = append(dst, `,"days":`...)
		dst = strconv.AppendInt(dst, int64(len(s.days)), 10)
	}
	if len(s.groups) > 0 {
		names := make([]string, 0, len(s.groups))
		for name := range s.groups {
			names = append(names, name)
		}
		slices.Sort(names)
		dst = append(dst, `,"groups":{`...)
		for i, name := range names {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(jsontext.AppendString(dst, name), ':')
			dst = s.groups[name].appendJSON(dst)
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}
