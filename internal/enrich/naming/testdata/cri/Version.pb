
0.1.0
containerd
1.7.24~ds1"v1