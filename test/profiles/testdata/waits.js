// Writes to a slow disk: each write takes some 60 ms.
const fs = require('fs');
const [, , flag, file] = process.argv;
let sink = 0;

function begin() {
  while (!fs.existsSync(flag)) for (let i = 0; i < 200000; i++) sink += Math.sqrt(i);
}

function writeSlowly(fd, buf) {
  fs.writeSync(fd, buf, 0, buf.length, 0);
}

begin();
const fd = fs.openSync(file, 'r+');
const buf = Buffer.alloc(4096, 1);
let total = 0n;
for (let i = 0; i < 50; i++) {
  const t = process.hrtime.bigint();
  writeSlowly(fd, buf);
  total += process.hrtime.bigint() - t;
}
console.log('writeSlowly ' + total);
console.log('end');
setTimeout(() => {}, 600000);
