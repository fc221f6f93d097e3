// Creates a topic and produces COUNT records to its one partition in two requests.
// usage: node produce.mjs BOOTSTRAP TOPIC none|gzip|snappy plain|idempotent COUNT [security=PATH] [pause_ms=NUMBER]
// With a pause between them records are produced one by one to a topic that is there; one that is refused is tried again.
import kafkajs from 'kafkajs'
import SnappyCodec from 'kafkajs-snappy'
import { security, settingsOf } from './security.mjs'

const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = kafkajs
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec

const [bootstrap, topic, codec, mode, countText, ...pairs] = process.argv.slice(2)
const compression = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy }[codec]
const count = Number(countText)
const settings = settingsOf(pairs)
const emit = (event, fields = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`)
const kafka = new Kafka({
  clientId: 'kafkajs-test',
  brokers: bootstrap.split(','),
  logLevel: settings.pause_ms === undefined ? logLevel.WARN : logLevel.NOTHING,
  ...security(settings),
})

if (settings.pause_ms === undefined) {
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] })
  await admin.disconnect()
}

const producer = kafka.producer({ idempotent: mode === 'idempotent' })
await producer.connect()
const records = Array.from({ length: count }, (_, number) => ({
  key: `key-${number % 7}`,
  value: `value ${number} ${'y'.repeat(number)}`,
  partition: 0,
}))
const insist = async (record) => {
  for (;;) {
    try {
      const [answer] = await producer.send({ topic, messages: [record], compression, acks: -1 })
      return answer
    } catch (error) {
      emit('problem', { message: `${error.name}: ${error.message}` })
    }
    await pause()
  }
}
const pause = () => new Promise((resolve) => setTimeout(resolve, Number(settings.pause_ms)))
if (settings.pause_ms !== undefined) {
  for (const [number, record] of records.entries()) {
    const { partition, baseOffset } = await insist({ ...record, value: String(number) })
    emit('produced', { partition, offset: Number(baseOffset), value: String(number) })
    await pause()
  }
  await producer.disconnect()
  emit('closed')
  process.exit(0)
}
const baseOffsets = []
for (const half of [records.slice(0, count / 2), records.slice(count / 2)]) {
  const [answer] = await producer.send({ topic, messages: half, compression, acks: -1 })
  baseOffsets.push(answer.baseOffset)
}
await producer.disconnect()
console.log(JSON.stringify({ baseOffsets }))
