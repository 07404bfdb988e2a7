package faults

import (
	"context"

	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

// letters reads a topic of dead letters from start to end.
func (s *suite) letters(ctx context.Context, topic string) (letters []*rejection.Envelope, err error) {
	return letters, s.broker.Read(ctx, topic, func(value []byte) error {
		letter, err := rejection.Decode(value)
		letters = append(letters, letter)
		return err
	})
}
