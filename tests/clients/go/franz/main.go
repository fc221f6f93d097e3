// A producer and a group member on franz-go.
package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"warp.test/clients/member"
)

func main() {
	member.Main(member.Client{Produce: produce, Consume: consume})
}

func codec(name string) kgo.CompressionCodec {
	return map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[name]
}

// reach says where the agents are, and how to come in.
func reach(job member.Job) []kgo.Opt {
	options := []kgo.Opt{kgo.SeedBrokers(job.Servers()...)}
	security := job.Security()
	if config := security.TLS(); config != nil {
		options = append(options, kgo.DialTLSConfig(config))
	}
	switch security.Mechanism {
	case "PLAIN":
		auth := plain.Auth{User: security.User, Pass: security.Password}
		options = append(options, kgo.SASL(auth.AsMechanism()))
	case "SCRAM-SHA-256":
		auth := scram.Auth{User: security.User, Pass: security.Password}
		options = append(options, kgo.SASL(auth.AsSha256Mechanism()))
	case "SCRAM-SHA-512":
		auth := scram.Auth{User: security.User, Pass: security.Password}
		options = append(options, kgo.SASL(auth.AsSha512Mechanism()))
	case "OAUTHBEARER":
		options = append(options, kgo.SASL(oauth.Auth{Token: security.Token}.AsMechanism()))
	}
	return options
}

func produce(ctx context.Context, job member.Job) error {
	client, err := kgo.NewClient(append(reach(job),
		kgo.DefaultProduceTopic(job.Topic),
		kgo.AllowAutoTopicCreation(),
		kgo.ProducerBatchCompression(codec(job.Setting("codec", "none"))),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)...)
	if err != nil {
		return err
	}
	defer client.Close()
	from := job.Number("from", 0)
	for number := from; number < from+job.Count; number++ {
		record := kgo.Record{Value: []byte(strconv.Itoa(number)), Partition: int32(job.PartitionOf(number))}
		if job.IsPatient() {
			if err := job.Insist(ctx, func() error {
				return client.ProduceSync(ctx, &record).FirstErr()
			}); err != nil {
				return err
			}
			member.Produced(record.Partition, record.Offset, record.Value)
			continue
		}
		client.Produce(ctx, &record, func(record *kgo.Record, err error) {
			if err != nil {
				member.Problem(err)
				return
			}
			member.Produced(record.Partition, record.Offset, record.Value)
		})
	}
	return client.Flush(ctx)
}

// owned is the set of partitions that the member has.
type owned struct {
	sync.Mutex
	partitions []int32
}

func (owned *owned) change(topic string, gained, lost map[string][]int32) {
	owned.Lock()
	defer owned.Unlock()
	left := []int32{}
	for _, partition := range append(owned.partitions, gained[topic]...) {
		if !slices.Contains(lost[topic], partition) && !slices.Contains(left, partition) {
			left = append(left, partition)
		}
	}
	slices.Sort(left)
	owned.partitions = left
	member.Assigned(left)
}

func consume(ctx context.Context, job member.Job) error {
	var has owned
	options := append(reach(job),
		kgo.ConsumerGroup(job.Group),
		kgo.ConsumeTopics(job.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(time.Duration(job.Number("session_ms", 10_000))*time.Millisecond),
		kgo.HeartbeatInterval(time.Duration(job.Number("heartbeat_ms", 1_000))*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, gained map[string][]int32) {
			has.change(job.Topic, gained, nil)
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			has.change(job.Topic, nil, lost)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			has.change(job.Topic, nil, lost)
		}),
	)
	if job.Setting("assignor", "range") == "cooperative" {
		options = append(options, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	} else {
		options = append(options, kgo.Balancers(kgo.RangeBalancer()))
	}
	if instance := job.Setting("instance", ""); instance != "" {
		options = append(options, kgo.InstanceID(instance))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	for ctx.Err() == nil {
		fetches := client.PollRecords(ctx, 100)
		fetches.EachError(func(_ string, _ int32, err error) {
			if !errors.Is(err, context.Canceled) {
				member.Problem(err)
			}
		})
		fetches.EachRecord(func(record *kgo.Record) {
			member.Record(record.Partition, record.Offset, record.Value)
		})
		commit(client, fetches.Records())
		client.AllowRebalance()
	}
	return nil
}

func commit(client *kgo.Client, records []*kgo.Record) {
	if len(records) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := client.CommitRecords(ctx, records...); err != nil {
		member.Problem(err)
		return
	}
	last := map[int32]int64{}
	for _, record := range records {
		last[record.Partition] = record.Offset + 1
	}
	for partition, offset := range last {
		member.Committed(partition, offset)
	}
}
