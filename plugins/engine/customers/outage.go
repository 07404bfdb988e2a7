package customers

import "sync/atomic"

// Outage logs an outage of the profile store once when it begins and once when it
// ends. The zero value is ready to use, by any number of goroutines.
type Outage struct{ active atomic.Bool }

// Begin reports that an operation failed because of the store.
func (o *Outage) Begin(log Logger, err error) {
	if o.active.CompareAndSwap(false, true) {
		log.Errorf("The profile store is unavailable until operations succeed again: %v", err)
	}
}

// End reports that an operation succeeded.
func (o *Outage) End(log Logger) {
	if o.active.Load() && o.active.CompareAndSwap(true, false) {
		log.Infof("The profile store is available again.")
	}
}
