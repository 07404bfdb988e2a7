package fit

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models/fit"
)

// readLog reads lines of customer id, sample id, date, quantity and dollars.
func readLog(path string) (*fit.Transactions, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()

	log := &fit.Transactions{}
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		columns := strings.Fields(lines.Text())
		if len(columns) != 5 {
			return nil, fmt.Errorf("%s:%d: %d columns; write customer id, sample id, date as YYYYMMDD, quantity and dollars", path, n, len(columns))
		}
		day, err := time.Parse("20060102", columns[2])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: the third column is not a date: write it as YYYYMMDD", path, n)
		}
		dollars, err := strconv.ParseFloat(columns[4], 64)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: the fifth column is not a number of dollars", path, n)
		}
		log.Add(columns[0], fit.DayOf(day), dollars)
	}
	return log, lines.Err()
}
