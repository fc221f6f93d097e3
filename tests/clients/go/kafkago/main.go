// A producer and a group member on segmentio/kafka-go: its Writer, its Reader in a group, its Conn.
package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"warp.test/clients/member"
)

func main() {
	member.Main(member.Client{Produce: produce, Consume: consume})
}

// balancer sends a record to the partition that its number says.
type balancer struct{ job member.Job }

func (balancer balancer) Balance(message kafka.Message, partitions ...int) int {
	number, err := strconv.Atoi(string(message.Value))
	if err != nil {
		return partitions[0]
	}
	return balancer.job.PartitionOf(number)
}

// mechanism is that of the job; the library brings none for OAUTHBEARER.
func mechanism(security member.Security) (sasl.Mechanism, error) {
	switch security.Mechanism {
	case "":
		return nil, nil
	case "PLAIN":
		return plain.Mechanism{Username: security.User, Password: security.Password}, nil
	case "SCRAM-SHA-256":
		return scram.Mechanism(scram.SHA256, security.User, security.Password)
	case "SCRAM-SHA-512":
		return scram.Mechanism(scram.SHA512, security.User, security.Password)
	}
	return nil, fmt.Errorf("no mechanism %s", security.Mechanism)
}

func dialer(job member.Job) (*kafka.Dialer, error) {
	security := job.Security()
	mechanism, err := mechanism(security)
	return &kafka.Dialer{TLS: security.TLS(), SASLMechanism: mechanism, Timeout: 10 * time.Second}, err
}

func produce(ctx context.Context, job member.Job) error {
	dialer, err := dialer(job)
	if err != nil {
		return err
	}
	if !job.IsPatient() {
		if err := inspect(ctx, dialer, job); err != nil {
			return err
		}
	}
	writer := &kafka.Writer{
		Addr:         kafka.TCP(job.Servers()...),
		Transport:    &kafka.Transport{TLS: dialer.TLS, SASL: dialer.SASLMechanism},
		Topic:        job.Topic,
		Balancer:     balancer{job},
		RequiredAcks: kafka.RequireAll,
		BatchTimeout: 10 * time.Millisecond,
		Completion: func(messages []kafka.Message, err error) {
			for _, message := range messages {
				if err == nil {
					member.Produced(int32(message.Partition), message.Offset, message.Value)
				}
			}
		},
	}
	if name := job.Setting("codec", "none"); name != "none" {
		codecs := map[string]compress.Compression{
			"gzip": compress.Gzip, "snappy": compress.Snappy, "lz4": compress.Lz4, "zstd": compress.Zstd,
		}
		writer.Compression = codecs[name]
	}
	from := job.Number("from", 0)
	messages := make([]kafka.Message, 0, job.Count)
	for number := from; number < from+job.Count; number++ {
		messages = append(messages, kafka.Message{Value: []byte(strconv.Itoa(number))})
	}
	if job.IsPatient() {
		for _, message := range messages {
			if err := job.Insist(ctx, func() error { return writer.WriteMessages(ctx, message) }); err != nil {
				return err
			}
		}
	} else if err := writer.WriteMessages(ctx, messages...); err != nil {
		return err
	}
	return writer.Close()
}

// inspect makes the topic if it has to, and looks at it, over a bare Conn.
func inspect(ctx context.Context, dialer *kafka.Dialer, job member.Job) error {
	conn, err := dialer.DialContext(ctx, "tcp", job.Servers()[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	topic := kafka.TopicConfig{
		Topic: job.Topic, NumPartitions: job.Number("partitions", 1), ReplicationFactor: 1,
	}
	if err := conn.CreateTopics(topic); err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		return fmt.Errorf("create: %w", err)
	}
	partitions, err := conn.ReadPartitions(job.Topic)
	if err != nil {
		return fmt.Errorf("partitions: %w", err)
	}
	if len(partitions) != topic.NumPartitions {
		return fmt.Errorf("%d partitions, not %d", len(partitions), topic.NumPartitions)
	}
	leader, err := dialer.DialLeader(ctx, "tcp", job.Servers()[0], job.Topic, 0)
	if err != nil {
		return fmt.Errorf("leader: %w", err)
	}
	defer leader.Close()
	first, last, err := leader.ReadOffsets()
	if err != nil {
		return fmt.Errorf("offsets: %w", err)
	}
	member.Emit("inspected", map[string]any{"first": first, "last": last, "partitions": len(partitions)})
	return nil
}

func consume(ctx context.Context, job member.Job) error {
	dialer, err := dialer(job)
	if err != nil {
		return err
	}
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers:           job.Servers(),
		Dialer:            dialer,
		GroupID:           job.Group,
		Topic:             job.Topic,
		StartOffset:       kafka.FirstOffset,
		MaxWait:           500 * time.Millisecond,
		SessionTimeout:    time.Duration(job.Number("session_ms", 10_000)) * time.Millisecond,
		HeartbeatInterval: time.Duration(job.Number("heartbeat_ms", 1_000)) * time.Millisecond,
		RebalanceTimeout:  10 * time.Second,
		JoinGroupBackoff:  500 * time.Millisecond,
		ErrorLogger: kafka.LoggerFunc(func(format string, values ...any) {
			member.Problem(fmt.Errorf(format, values...))
		}),
	})
	for ctx.Err() == nil {
		message, err := reader.FetchMessage(ctx)
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				member.Problem(err)
			}
			continue
		}
		member.Record(int32(message.Partition), message.Offset, message.Value)
		commitCtx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err = reader.CommitMessages(commitCtx, message)
		cancel()
		if err != nil {
			member.Problem(err)
			continue
		}
		member.Committed(int32(message.Partition), message.Offset+1)
	}
	return reader.Close()
}
