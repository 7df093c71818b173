// Leaks 64 MiB in leak.
const fs = require('fs');
const flag = process.argv[2];
let sink = 0;
const kept = [];

function begin() {
  while (!fs.existsSync(flag)) for (let i = 0; i < 200000; i++) sink += Math.sqrt(i);
}

function leak() {
  kept.push(Buffer.alloc(1 << 20, 1)); // the leaking line
}

begin();
for (let i = 0; i < 64; i++) leak();
console.log('leak ' + (64 << 20));
console.log('end');
setTimeout(() => {}, 600000);
