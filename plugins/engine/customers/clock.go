package customers

import "time"

// wallClock tells the time. Builds for simulations have another.
var wallClock = time.Now
