//go:build race

package record_test

// raceDetector tells that tests run under it, ten times as slow: long ones
// that have no concurrency in them are shorter then.
const raceDetector = true
