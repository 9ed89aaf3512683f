// A command line around the Object Store of nats.js, for the tests across clients.
//
//   node main.js URL BUCKET COMMAND [ARGUMENT...]
//
// Bodies of objects travel on standard input and output, infos as ADR-20 JSON on standard output,
// errors on standard error with exit status 1.  CommonJS, because NODE_PATH, which leads to the
// packages outside of the source tree, counts for `require` alone.
"use strict";

const { readFileSync } = require("node:fs");
const { Objm } = require("@nats-io/obj");
const { connect } = require("@nats-io/transport-node");

// Milliseconds: the longest wait for one answer of the server.
const TIMEOUT = 20_000;

function show(value) {
  console.log(JSON.stringify(value));
}

// nats.js wraps the ADR-20 value; its isLink() makes it usable as the target of a link.
function plain(info) {
  return info.info ?? info;
}

// nats.js gives null for a name that never was, and the tombstone for a deleted one.
function known(info, name) {
  if (info === null || info.deleted) {
    throw new Error(`object not found: ${name}`);
  }
  return info;
}

function write(bytes) {
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}

const commands = {
  // put NAME: stores standard input.
  async put(store, _objm, name) {
    show(plain(await store.putBlob({ name }, readFileSync(0), { timeout: TIMEOUT })));
  },

  // get NAME: writes the object to standard output, its links followed and its digest checked.
  async get(store, _objm, name) {
    known(await store.info(name), name);
    const result = await store.get(name);
    for await (const piece of result.data) {
      await write(piece);
    }
    const error = await result.error;
    if (error) {
      throw error;
    }
  },

  async info(store, _objm, name) {
    show(plain(known(await store.info(name), name)));
  },

  async list(store) {
    show((await store.list()).map(plain));
  },

  async delete(store, _objm, name) {
    known(await store.info(name), name);
    await store.delete(name);
  },

  // addlink NAME TARGET
  async addlink(store, _objm, name, target) {
    show(plain(await store.link(name, known(await store.info(target), target))));
  },

  // addbucketlink NAME BUCKET
  async addbucketlink(store, objm, name, bucket) {
    show(plain(await store.linkStore(name, await objm.open(bucket))));
  },

  // updatemeta NAME NEW-NAME DESCRIPTION
  async updatemeta(store, _objm, name, newName, description) {
    await store.update(name, { name: newName, description });
  },

  // watch-once: prints "ready" when it watches, then the first change.
  async "watch-once"(store) {
    const changes = await store.watch();
    console.log("ready");
    const timer = setTimeout(() => changes.stop(new Error("no change in time")), TIMEOUT);
    for await (const change of changes) {
      show(plain(change));
      break;
    }
    clearTimeout(timer);
  },

  async seal(store) {
    await store.seal();
  },
};

async function main([url, bucket, name, ...args]) {
  const connection = await connect({ servers: url, timeout: TIMEOUT });
  try {
    const objm = new Objm(connection);
    if (name === "create") {
      await objm.create(bucket);
    } else if (Object.hasOwn(commands, name)) {
      await commands[name](await objm.open(bucket), objm, ...args);
    } else {
      throw new Error(`no command ${name}`);
    }
  } finally {
    await connection.close();
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`jsclient: ${error.message}`);
  process.exitCode = 1;
});
