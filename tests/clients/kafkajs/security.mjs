// How kafkajs comes in where an agent asks who is there: the file PATH.json, when the setting `security` is PATH.
import { readFileSync } from 'node:fs'

export const settingsOf = (pairs) =>
  Object.fromEntries(pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]))

export const security = (settings) => {
  if (settings.security === undefined) {
    return {}
  }
  const { protocol, mechanism, user, password, token, ca, certificate, key } = JSON.parse(
    readFileSync(`${settings.security}.json`, 'utf8'),
  )
  const read = (path) => (path === undefined ? undefined : readFileSync(path))
  const found = {}
  if (protocol.endsWith('SSL')) {
    found.ssl = { ca: [read(ca)], cert: read(certificate), key: read(key) }
  }
  if (mechanism === 'OAUTHBEARER') {
    found.sasl = { mechanism: 'oauthbearer', oauthBearerProvider: async () => ({ value: token }) }
  } else if (mechanism !== '') {
    found.sasl = { mechanism: mechanism.toLowerCase(), username: user, password }
  }
  return found
}
