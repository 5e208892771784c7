// Receivers as the platforms' documentation writes them, on the real frameworks.
//
// node receivers.js SECRET [OTHER…]: each receiver verifies with the secret whose number is the
// path's last part (/0, /1, …) and listens at a port of its own. One line of JSON says which.
// A handler that throws answers 500, as it does at a customer's.
'use strict';

const crypto = require('crypto');
const http = require('http');
const express4 = require('express4');
const express5 = require('express5');
const { Webhook } = require('standardwebhooks');

const secrets = process.argv.slice(2);
const secretOf = (req) => secrets[Number(req.url.split('/').pop())];
const hmac = (secret, bytes) => crypto.createHmac('sha256', secret).update(bytes).digest('hex');
const equal = (a, b) => crypto.timingSafeEqual(Buffer.from(a), Buffer.from(b));

// BaxCloud: Express with the raw body; deduplicates on the event's id.
function baxcloud(express) {
  const app = express();
  const seen = new Set();
  app.post('/:secret', express.raw({ type: 'application/json' }), (req, res) => {
    const signature = req.headers['x-baxcloud-signature'];
    if (!equal(signature, hmac(secretOf(req), req.body))) {
      return res.status(401).json({ error: 'Invalid signature' });
    }
    const event = JSON.parse(req.body.toString());
    const first = !seen.has(event.id);
    seen.add(event.id);
    res.status(200).json({ received: true, first, type: event.type, object: event.data.object });
  });
  return app;
}

// Bedrud: plain Node.
function bedrud() {
  return (req, res) => {
    const chunks = [];
    req.on('data', (chunk) => chunks.push(chunk));
    req.on('end', () => {
      const body = Buffer.concat(chunks);
      const answer = (status, content) => {
        res.writeHead(status, { 'Content-Type': 'application/json' });
        res.end(JSON.stringify(content));
      };
      try {
        const expected = 'sha256=' + hmac(secretOf(req), body);
        const names = ['x-webhook-signature', 'x-bedrud-signature'];
        if (!names.every((name) => equal(req.headers[name], expected))) {
          return answer(401, { error: 'Invalid signature' });
        }
        const { event, timestamp, data } = JSON.parse(body.toString());
        const same =
          req.headers['x-webhook-event'] === event &&
          req.headers['x-bedrud-event'] === event &&
          req.headers['x-bedrud-timestamp'] === timestamp;
        answer(same ? 200 : 400, { received: same, event, data });
      } catch (error) {
        answer(500, { error: String(error) });
      }
    });
  };
}

// Meeting BaaS: Express that parses the body, and verifies what JSON.stringify makes of it again.
function meetingbaas(express) {
  const app = express();
  app.use(express.json());
  app.post('/:secret', (req, res) => {
    const signature = req.headers['x-meetingbaas-signature'];
    if (!equal(signature, hmac(secretOf(req), JSON.stringify(req.body)))) {
      return res.status(401).json({ error: 'Invalid signature' });
    }
    const { event, data } = req.body;
    if (event === 'complete') {
      return res.status(200).json({ received: true, event, bot: data.bot_id, words: data.transcript.length });
    }
    res.status(200).json({ received: true, event });
  });
  return app;
}

// Standard Webhooks: the official library, over the raw body.
function standard(express) {
  const app = express();
  app.post('/:secret', express.raw({ type: 'application/json' }), (req, res) => {
    try {
      const verified = new Webhook(secretOf(req)).verify(req.body, req.headers);
      res.status(200).json({ received: true, type: verified.type });
    } catch (error) {
      res.status(401).json({ error: error.name });
    }
  });
  return app;
}

const quiet = (app) => app.set('env', 'test'); // Express prints the stack of what a handler throws otherwise
const receivers = {
  'baxcloud-express4': quiet(baxcloud(express4)),
  'baxcloud-express5': quiet(baxcloud(express5)),
  'bedrud-node': bedrud(),
  'meetingbaas-express4': quiet(meetingbaas(express4)),
  'meetingbaas-express5': quiet(meetingbaas(express5)),
  'standard-express5': quiet(standard(express5)),
};

const ports = {};
for (const [name, receiver] of Object.entries(receivers)) {
  const server = http.createServer(receiver).listen(0, '127.0.0.1', () => {
    ports[name] = server.address().port;
    if (Object.keys(ports).length === Object.keys(receivers).length) console.log(JSON.stringify(ports));
  });
}
process.stdin.on('end', () => process.exit(0)).resume(); // whoever started us is gone
