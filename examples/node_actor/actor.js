// Plays game.js by a learner's actions: node actor.js HOST:PORT [TASK [ENVIRONMENTS]]
const { randomBytes } = require('crypto');
const grpc = require('@grpc/grpc-js');
const { loadSync } = require('@grpc/proto-loader');
const { observation, action, Game } = require('./game');

const ROOT = process.env.PROTO_ROOT || `${__dirname}/../..`; // where tfdrl/rpc is
const HOW = { includeDirs: [ROOT], keepCase: true, longs: String, defaults: true, oneofs: true };
const proto = loadSync('tfdrl/rpc/inference.proto', HOW);
const { Inference } = grpc.loadPackageDefinition(proto).tfdrl.v1;
const [FIRST, MID, LAST] = [0, 1, 2];
const GIVE_UP_MS = 120e3; // without an answer
const WORTH_A_RETRY = ['UNAVAILABLE', 'ALREADY_EXISTS', 'RESOURCE_EXHAUSTED', 'DEADLINE_EXCEEDED'];

const [address, task = 0, count = 8] = process.argv.slice(2);
if (!address) throw new Error('usage: node actor.js HOST:PORT [TASK [ENVIRONMENTS]]');
const N = Number(count), SIZE = observation.shape.reduce((a, b) => a * b, 1);
const client = new Inference(address, grpc.credentials.createInsecure());
const recent = []; // returns of the last hundred episodes

const tensor = (dtype, shape, array) => ({ dtype, shape, data: Buffer.from(array.buffer) });

class Environments { // of one stream, as the arrays that a Steps message has
  games = Array.from({ length: N }, () => new Game());
  type = new Uint8Array(N).fill(LAST); // the step after a LAST one is FIRST
  returns = new Float32Array(N);
  lengths = new Int32Array(N);
  index = 0; frames = 0; episodes = 0;

  step(actions) { // which are ignored where an episode has ended
    const reward = new Float32Array(N), discount = new Float32Array(N).fill(1);
    const boards = new Float32Array(N * SIZE);
    const ended = { first: this.episodes, returns: [], length_frames: [] };
    this.games.forEach((game, i) => {
      const begins = this.type[i] === LAST;
      const made = begins ? game.reset() : game.step(actions[i]);
      [reward[i], discount[i]] = [made.reward, made.terminated ? 0 : 1];
      this.type[i] = begins ? FIRST : made.terminated ? LAST : MID;
      this.returns[i] = begins ? 0 : this.returns[i] + made.reward;
      this.lengths[i] = begins ? 0 : this.lengths[i] + 1;
      this.frames += begins ? 0 : 1;
      if (made.terminated) {
        ended.returns.push(this.returns[i]);
        ended.length_frames.push(this.lengths[i]);
      }
      game.draw(boards.subarray(i * SIZE, (i + 1) * SIZE));
    });
    this.episodes += ended.returns.length;
    recent.push(...ended.returns);
    recent.splice(0, recent.length - 100);
    const observations = [tensor('float32', [N, ...observation.shape], boards)];
    return {
      index: this.index++, step_type: tensor('uint8', [N], this.type.slice()),
      reward: tensor('float32', [N], reward), discount: tensor('float32', [N], discount),
      observation: observations, frames: this.frames, episodes: ended,
    };
  }
}

const run = () => new Promise((resolve, reject) => { // one stream, to the reason for its end
  const environments = new Environments(), stream = client.Act();
  let timer;
  const send = (message) => {
    clearTimeout(timer);
    timer = setTimeout(() => stream.cancel(), GIVE_UP_MS);
    stream.write(message);
  };
  stream.on('error', (error) => { clearTimeout(timer); reject(error); });
  stream.on('end', () => clearTimeout(timer));
  stream.on('data', ({ welcome, actions, stop }) => {
    if (stop) { clearTimeout(timer); stream.end(); resolve(stop.reason); return; }
    const data = welcome ? [] : actions.action[0].data; // int32[N], little-endian
    const chosen = Array.from({ length: data.length / 4 }, (_, i) => data.readInt32LE(4 * i));
    send({ steps: environments.step(chosen) });
  });
  const sender = { role: 'actor', task, run_id: randomBytes(8).readBigUInt64LE().toString() };
  send({ hello: { sender, protocol_version: 1, first_environment: task * N, environments: N,
    observation: [observation], action: [action], frame_stack: 1 } });
});

async function main() {
  for (let since = Date.now(); ;) {
    const begun = Date.now();
    try { console.log('stopped:', await run()); break; } catch (error) {
      if (Date.now() - begun > 5e3) since = Date.now(); // it played for a while
      const worth = WORTH_A_RETRY.includes(grpc.status[error.code]);
      if (!worth || Date.now() - since > GIVE_UP_MS) throw error;
      await new Promise((wake) => setTimeout(wake, 500)); // then as another run_id
    }
  }
  console.log('mean return', recent.reduce((a, b) => a + b, 0) / recent.length);
  client.close();
}

main().catch((error) => { console.error(String(error)); process.exit(1); });
