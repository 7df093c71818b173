
İ
@16bd0df0fdce020bfacf20bafc22bcc2358ab7970565c8551a1a6acabd309331
app êèø›õËİõ(äá¤ÄõËİõB
localhost/busybox:1JGsha256:a336eec1881f0967010da0ec7055c058ee1fee890781a02626d97155518f495eb9
io.kubernetes.pod.uid 2dc345f79ce405626bf4d35e3e76b804b#
io.kubernetes.container.nameappb%
io.kubernetes.pod.namespaceteam-ab#
io.kubernetes.pod.name	web-node1jF
.io.kubernetes.container.terminationMessagePath/dev/termination-logj)
$io.kubernetes.container.restartCount2j(
io.kubernetes.container.hash8a5e1c0dj.
(io.kubernetes.pod.terminationGracePeriod30z/tmp/hc/logs/a.log‚

 €€€ P€€€ 