// The scenario in Node.js: where the packages are, and the address of who controls it, are its arguments.

import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { run } from './scenario.js';

const [modules, address] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${modules}/package.json`));
const { Centrifuge, UnauthorizedError } = require('centrifuge');
const { WebSocket } = require('ws');

async function control(what) {
  const answer = await fetch(`http://${address}/control`, { method: 'POST', body: JSON.stringify(what) });
  if (!answer.ok) throw new Error(`${JSON.stringify(what)}: ${await answer.text()}`);
  return answer.json();
}

const { endpoint } = await control({ do: 'endpoint' });
await run({ Centrifuge, UnauthorizedError, WebSocket, endpoint, control, told: (name) => console.log(name) });
console.log('done');
process.exit(0);
