// An identity provider for tests/it/idp.rs: oidc-provider on a free port of the loopback address, for
// one client, with the grant `client_credentials` and access tokens that are JWTs.
//
// Each line on standard input names the key pairs to publish from now on, `old new`; the first of
// them signs. A line on standard output says that they are published, and where. The end of the
// input ends it all.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import Provider from 'oidc-provider';

const kinds = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519', {}],
};

// A key pair of this name for each algorithm, the same whenever it is asked for.
const pairs = new Map();
function pair(name) {
  if (!pairs.has(name)) {
    pairs.set(name, Object.entries(kinds).map(([alg, [type, options]]) => ({
      ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
      kid: `${name}-${alg}`,
      use: 'sig',
      alg,
    })));
  }
  return pairs.get(name);
}

// A resource is named AUDIENCE/ALGORITHM, below `https://api.example.com/`.
function resourceServer(ctx, indicator) {
  const [audience, alg] = new URL(indicator).pathname.slice(1).split('/');
  return { audience, scope: 'reports', accessTokenTTL: 300, accessTokenFormat: 'jwt', jwt: { sign: { alg } } };
}

function provider(issuer, names) {
  return new Provider(issuer, {
    clients: [{
      client_id: 'reports',
      client_secret: 'client-secret-of-the-tests',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    }],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer },
    },
    jwks: { keys: names.flatMap(pair) },
    ttl: { ClientCredentials: 300 },
  }).callback();
}

let answer;
const server = createServer((request, response) => answer(request, response));
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (names) => {
    answer = provider(issuer, names.split(' '));
    console.log(`${issuer} publishes ${names}`);
  });
  lines.on('close', () => process.exit());
});
