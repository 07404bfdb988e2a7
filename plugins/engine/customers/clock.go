package customers

import "time"

// wallClock returns the current time. Builds for simulations replace it.
var wallClock = time.Now
