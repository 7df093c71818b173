
ò
@16bd0df0fdce020bfacf20bafc22bcc2358ab7970565c8551a1a6acabd309331@69d63b41711d9a9611cfbfb4369f2376101849682e4f5ce287a5feba1377ad84
app"
localhost/busybox:1*Gsha256:a336eec1881f0967010da0ec7055c058ee1fee890781a02626d97155518f495e08êèø›õËİõB#
io.kubernetes.container.nameappB%
io.kubernetes.pod.namespaceteam-aB#
io.kubernetes.pod.name	web-node1B9
io.kubernetes.pod.uid 2dc345f79ce405626bf4d35e3e76b804J.
(io.kubernetes.pod.terminationGracePeriod30JF
.io.kubernetes.container.terminationMessagePath/dev/termination-logJ)
$io.kubernetes.container.restartCount2J(
io.kubernetes.container.hash8a5e1c0d