// Creates a topic and produces COUNT records to its one partition in two requests.
// usage: node produce.mjs BOOTSTRAP TOPIC none|gzip|snappy plain|idempotent COUNT
import kafkajs from 'kafkajs'
import SnappyCodec from 'kafkajs-snappy'

const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = kafkajs
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec

const [bootstrap, topic, codec, mode, countText] = process.argv.slice(2)
const compression = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy }[codec]
const count = Number(countText)
const kafka = new Kafka({ clientId: 'kafkajs-test', brokers: bootstrap.split(','), logLevel: logLevel.WARN })

const admin = kafka.admin()
await admin.connect()
await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] })
await admin.disconnect()

const producer = kafka.producer({ idempotent: mode === 'idempotent' })
await producer.connect()
const records = Array.from({ length: count }, (_, number) => ({
  key: `key-${number % 7}`,
  value: `value ${number} ${'y'.repeat(number)}`,
  partition: 0,
}))
const baseOffsets = []
for (const half of [records.slice(0, count / 2), records.slice(count / 2)]) {
  const [answer] = await producer.send({ topic, messages: half, compression, acks: -1 })
  baseOffsets.push(answer.baseOffset)
}
await producer.disconnect()
console.log(JSON.stringify({ baseOffsets }))
