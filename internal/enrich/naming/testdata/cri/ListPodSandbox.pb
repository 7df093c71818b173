
¥
@69d63b41711d9a9611cfbfb4369f2376101849682e4f5ce287a5feba1377ad845
	web-node1 2dc345f79ce405626bf4d35e3e76b804team-a ç…¨ÑôËÝõ*9
io.kubernetes.pod.uid 2dc345f79ce405626bf4d35e3e76b804*%
io.kubernetes.pod.namespaceteam-a*#
io.kubernetes.pod.name	web-node1*
tierfront*

appweb2=
kubernetes.io/config.hash 2dc345f79ce405626bf4d35e3e76b8042#
kubernetes.io/config.sourcefile2
example.com/owneralice