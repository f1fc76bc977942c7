// Checks that print what they saw, one line each, and end the program when one fails.
'use strict';

const { isDeepStrictEqual, inspect } = require('node:util');

const WAIT = 30_000; // milliseconds; nothing here takes one of them on a hub that works

function failed(what, got, want) {
  console.log(`FAILED ${what}: got ${inspect(got, { depth: 3 })}, want ${inspect(want, { depth: 3 })}`);
  process.exit(1);
}

function check(what, got, want) {
  if (!isDeepStrictEqual(got, want)) failed(what, got, want);
  console.log(`ok ${what}`);
}

function checkThat(what, holds, got) {
  if (!holds) failed(what, got, true);
  console.log(`ok ${what}`);
}

// rejects checks that the promise is rejected with an error of this name, and returns the error.
async function rejects(what, name, promise) {
  let got;
  try {
    got = await promise;
  } catch (err) {
    if (err.name === name || err.constructor.name === name) {
      console.log(`ok ${what}: ${name}`);
      return err;
    }
    failed(what, `${err.name}: ${err.message}`, name);
  }
  return failed(what, got, name);
}

// soon resolves as promise does, and ends the program when that takes too long.
function soon(what, promise) {
  let timer;
  const late = new Promise((resolve) => { timer = setTimeout(resolve, WAIT, 'late'); });
  return Promise.race([promise, late]).then((value) => {
    if (value === 'late') failed(what, 'nothing', `something in ${WAIT} ms`);
    clearTimeout(timer);
    return value;
  });
}

// eventually checks that call soon returns what is wanted.
async function eventually(what, call, want) {
  const deadline = Date.now() + WAIT;
  let got = await call();
  while (!isDeepStrictEqual(got, want) && Date.now() < deadline) got = await call();
  check(what, got, want);
}

// An Inbox keeps what a handler received until somebody asks for it.
class Inbox {
  constructor() {
    this.values = [];
    this.waiting = [];
  }

  put(value) {
    const resolve = this.waiting.shift();
    if (resolve) resolve(value); else this.values.push(value);
  }

  next(what) {
    if (this.values.length) return Promise.resolve(this.values.shift());
    return soon(what, new Promise((resolve) => this.waiting.push(resolve)));
  }
}

function run(main) {
  main().then(() => {
    console.log('all checks passed');
    process.exit(0);
  }, (err) => {
    console.log('FAILED', err);
    process.exit(1);
  });
}

module.exports = { Inbox, check, checkThat, eventually, rejects, run, soon };
