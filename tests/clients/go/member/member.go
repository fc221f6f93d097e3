// Package member is what the programs of this module share: their command line, and the lines that they print.
//
//	PROGRAM produce BOOTSTRAP TOPIC COUNT [NAME=VALUE ...]
//	PROGRAM consume BOOTSTRAP TOPIC GROUP [NAME=VALUE ...]
//
// `produce` writes records whose values are the numbers from `from` (0) on, and ends. `consume` is one member of a
// group: it processes records and commits after each batch until SIGTERM, then leaves the group. Each prints events,
// one JSON object a line; tests/clients/members.py reads them and says what each means. With `pause_ms` records are
// produced one by one with that pause between them, and one that is refused is tried again.
package member

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Job is one run's command line.
type Job struct {
	Bootstrap string
	Topic     string
	Count     int
	Group     string
	Settings  map[string]string
}

// Servers are the addresses of Bootstrap, which has commas between them.
func (job Job) Servers() []string {
	return strings.Split(job.Bootstrap, ",")
}

// Setting is the value given for a name, or another one.
func (job Job) Setting(name, otherwise string) string {
	if value, given := job.Settings[name]; given {
		return value
	}
	return otherwise
}

// Number is Setting as a number; anything else ends the program.
func (job Job) Number(name string, otherwise int) int {
	number, err := strconv.Atoi(job.Setting(name, strconv.Itoa(otherwise)))
	if err != nil {
		fail(fmt.Errorf("%s: %w", name, err))
	}
	return number
}

// Partitioned holds the numbers to give to a partition: record `number` goes to partition `number % partitions`.
func (job Job) PartitionOf(number int) int {
	return number % job.Number("partitions", 1)
}

// IsPatient is whether records are produced one by one.
func (job Job) IsPatient() bool {
	return job.Setting("pause_ms", "") != ""
}

// Insist does something until it succeeds, telling of each failure, and pauses after each attempt.
func (job Job) Insist(ctx context.Context, try func() error) error {
	for ctx.Err() == nil {
		err := try()
		time.Sleep(time.Duration(job.Number("pause_ms", 0)) * time.Millisecond)
		if err == nil {
			return nil
		}
		Problem(err)
	}
	return ctx.Err()
}

// Client is what each program brings.
type Client struct {
	Produce func(context.Context, Job) error
	Consume func(context.Context, Job) error
}

var printing sync.Mutex

// Emit prints an event.
func Emit(event string, fields map[string]any) {
	line := map[string]any{"event": event}
	for name, value := range fields {
		line[name] = value
	}
	text, err := json.Marshal(line)
	if err != nil {
		fail(err)
	}
	printing.Lock()
	defer printing.Unlock()
	if _, err := fmt.Println(string(text)); err != nil {
		os.Exit(1)
	}
}

// Assigned, Produced, Record and Committed print the events of a member. Partitions of an assignment are all that it now has.
func Assigned(partitions []int32) {
	if partitions == nil {
		partitions = []int32{}
	}
	Emit("assigned", map[string]any{"partitions": partitions})
}

func Produced(partition int32, offset int64, value []byte) {
	Emit("produced", map[string]any{"partition": partition, "offset": offset, "value": string(value)})
}

func Record(partition int32, offset int64, value []byte) {
	Emit("record", map[string]any{"partition": partition, "offset": offset, "value": string(value)})
}

func Committed(partition int32, offset int64) {
	Emit("committed", map[string]any{"partition": partition, "offset": offset})
}

// Problem prints an error that the program goes on after.
func Problem(err error) {
	Emit("problem", map[string]any{"message": err.Error()})
}

// Main runs a program; SIGTERM and SIGINT end its context.
func Main(client Client) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if len(os.Args) < 5 {
		fail(fmt.Errorf("usage: produce BOOTSTRAP TOPIC COUNT | consume BOOTSTRAP TOPIC GROUP, then NAME=VALUE ..."))
	}
	job := Job{Bootstrap: os.Args[2], Topic: os.Args[3], Settings: map[string]string{}}
	for _, argument := range os.Args[5:] {
		name, value, _ := strings.Cut(argument, "=")
		job.Settings[name] = value
	}
	var err error
	switch os.Args[1] {
	case "produce":
		if job.Count, err = strconv.Atoi(os.Args[4]); err == nil {
			err = client.Produce(ctx, job)
		}
	case "consume":
		job.Group = os.Args[4]
		err = client.Consume(ctx, job)
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
	Emit("closed", nil)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
