//go:build race

package record_test

// raceDetector is set if tests run under the race detector, ten times slower:
// long tests without concurrency are then shortened.
const raceDetector = true
