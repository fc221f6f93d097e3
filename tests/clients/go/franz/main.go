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

func produce(ctx context.Context, job member.Job) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(job.Servers()...),
		kgo.DefaultProduceTopic(job.Topic),
		kgo.AllowAutoTopicCreation(),
		kgo.ProducerBatchCompression(codec(job.Setting("codec", "none"))),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	from := job.Number("from", 0)
	for number := from; number < from+job.Count; number++ {
		record := kgo.Record{Value: []byte(strconv.Itoa(number)), Partition: int32(job.PartitionOf(number))}
		client.Produce(ctx, &record, func(record *kgo.Record, err error) {
			if err != nil {
				member.Problem(err)
				return
			}
			member.Emit("produced", map[string]any{
				"partition": record.Partition, "offset": record.Offset, "value": string(record.Value),
			})
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
	options := []kgo.Opt{
		kgo.SeedBrokers(job.Servers()...),
		kgo.ConsumerGroup(job.Group),
		kgo.ConsumeTopics(job.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(time.Duration(job.Number("session_ms", 10_000)) * time.Millisecond),
		kgo.HeartbeatInterval(time.Duration(job.Number("heartbeat_ms", 1_000)) * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, gained map[string][]int32) {
			has.change(job.Topic, gained, nil)
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			has.change(job.Topic, nil, lost)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			has.change(job.Topic, nil, lost)
		}),
	}
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
