// A group member on kafkajs: consume BOOTSTRAP TOPIC GROUP [NAME=VALUE ...]; see tests/clients/members.py.
import { Kafka, PartitionAssigners, logLevel } from "kafkajs";
import { security, settingsOf } from "./security.mjs";

const [command, bootstrap, topic, groupId, ...pairs] = process.argv.slice(2);
if (command !== "consume") {
  throw new Error(`unknown command ${command}`);
}
const settings = settingsOf(pairs);
const emit = (event, fields = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);

const logCreator = () => ({ log }) => emit("problem", { message: `${log.message} ${log.error ?? ""}` });
const kafka = new Kafka({
  brokers: bootstrap.split(','),
  logLevel: logLevel.ERROR,
  logCreator,
  retry: { retries: 100, initialRetryTime: 100, maxRetryTime: 1000 },
  ...security(settings),
});
// kafkajs calls its one way of sharing by a name of its own. Under a name that others know too it can be in their groups:
// metadata and assignments are those of all consumers, and which partitions a leader gives to whom is its own business.
const range = (config) => {
  const assigner = PartitionAssigners.roundRobin(config);
  const protocol = (subscription) => ({ ...assigner.protocol(subscription), name: "range" });
  return { ...assigner, name: "range", protocol };
};
const consumer = kafka.consumer({
  groupId,
  partitionAssigners: [range],
  sessionTimeout: Number(settings.session_ms ?? 10_000),
  rebalanceTimeout: 10_000,
  heartbeatInterval: Number(settings.heartbeat_ms ?? 1_000),
  maxWaitTimeInMs: 500,
});
consumer.on(consumer.events.GROUP_JOIN, ({ payload }) =>
  emit("assigned", { partitions: payload.memberAssignment[topic] ?? [] }),
);
consumer.on(consumer.events.REBALANCING, () => emit("assigned", { partitions: [] }));

const processBatch = async ({ batch, resolveOffset, commitOffsetsIfNecessary, heartbeat }) => {
  let next;
  for (const message of batch.messages) {
    emit("record", { partition: batch.partition, offset: Number(message.offset), value: String(message.value) });
    resolveOffset(message.offset);
    next = Number(message.offset) + 1;
  }
  if (next === undefined) {
    return;
  }
  await commitOffsetsIfNecessary({
    topics: [{ topic: batch.topic, partitions: [{ partition: batch.partition, offset: String(next) }] }],
  });
  emit("committed", { partition: batch.partition, offset: next });
  await heartbeat();
};

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, async () => {
    await consumer.disconnect();
    emit("closed");
    process.exit(0);
  });
}
const start = async () => {
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch: processBatch });
};
// The library gives up when it is refused something.
const startAgain = () =>
  start().catch((error) => {
    emit("problem", { message: `${error.name}: ${error.message}` });
    setTimeout(startAgain, 500);
  });
consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || setTimeout(startAgain, 500));
await startAgain();
