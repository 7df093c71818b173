// SPDX-License-Identifier: GPL-2.0
/*
 * linux-4.18.c - the types that our programs read, as Linux 4.18 has them, by
 * name, nesting and kind of member; other members are left out. It is compiled
 * to BTF, and the legacy objects are loaded with that: TestKernelOldTypes.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;
typedef struct {
	int counter;
} atomic_t;
typedef struct {
	long counter;
} atomic_long_t, atomic64_t;

union kernfs_node_id {
	struct {
		u32 ino;
		u32 generation;
	};
	u64 id;
};

struct kernfs_node {
	union kernfs_node_id id;
	unsigned short flags;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	void *ss;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};

enum cgroup_subsys_id {
	cpuset_cgrp_id,
	cpu_cgrp_id,
	cpuacct_cgrp_id,
	io_cgrp_id,
	memory_cgrp_id,
	CGROUP_SUBSYS_COUNT = 13
};

struct css_set {
	struct cgroup_subsys_state *subsys[CGROUP_SUBSYS_COUNT];
	struct cgroup *dfl_cgrp;
};

struct page_counter {
	atomic_long_t usage;
	unsigned long min, low, max;
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
	struct page_counter memory;
};

struct mm_rss_stat {
	atomic_long_t count[4];
};

struct mm_struct {
	struct {
		unsigned long total_vm;
		unsigned long arg_start, arg_end, env_start, env_end;
		struct mm_rss_stat rss_stat;
	};
};

struct signal_struct {
	atomic_t sigcnt;
	atomic_t live;
	unsigned int flags;
	short oom_score_adj;
};

struct sigaction {
	void (*sa_handler)(int);
	unsigned long sa_flags;
};

struct k_sigaction {
	struct sigaction sa;
};

struct linux_binprm {
	char buf[128];
	const char *filename;
};

struct nsproxy {
	void *uts_ns;
	struct net *net_ns;
};

struct module {
	char name[56];
	unsigned long taints;
};

struct cfs_rq {
	int throttled;
	int throttle_count;
};

struct sched_entity {
	struct cfs_rq *cfs_rq;
};

struct thread_info {
	unsigned long flags;
	u32 status;
};

struct task_struct {
	struct thread_info thread_info;
	volatile long state;
	void *stack;
	unsigned int flags;
	unsigned int cpu;
	struct sched_entity se;
	int prio;
	struct mm_struct *mm;
	int exit_code;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	unsigned long nvcsw;
	unsigned long nivcsw;
	u64 start_time;
	u64 real_start_time;
	unsigned long min_flt;
	unsigned long maj_flt;
	char comm[16];
	unsigned in_execve : 1;
	unsigned in_iowait : 1;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct css_set *cgroups;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

struct bpf_perf_event_data {
	struct pt_regs regs;
	u64 sample_period;
	u64 addr;
};

struct compact_control {
	unsigned long nr_freepages;
	int gfp_mask;
	int order;
};

struct trace_event_raw_mm_vmscan_direct_reclaim_begin_template {
	int order;
	int may_writepage;
	u32 gfp_flags;
	int classzone_idx;
};

struct trace_event_raw_kfree_skb {
	void *skbaddr;
	void *location;
	u16 protocol;
};

struct gendisk {
	int major;
	int first_minor;
};

struct request_queue {
	void *queuedata;
};

struct bio {
	struct bio *bi_next;
	struct gendisk *bi_disk;
	unsigned int bi_opf;
	void *bi_css;
};

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
	u64 __sector;
	struct bio *bio;
	struct gendisk *rq_disk;
	u64 start_time_ns;
	u64 io_start_time_ns;
};

struct qstr {
	u64 hash_len;
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
};

struct path {
	void *mnt;
	struct dentry *dentry;
};

struct inode {
	unsigned short i_mode;
	struct super_block *i_sb;
	struct address_space *i_mapping;
	u32 i_rdev;
	unsigned long i_ino;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
};

struct address_space {
	struct inode *host;
	u32 wb_err;
};

struct file_system_type {
	const char *name;
};

struct super_block {
	u32 s_dev;
	struct file_system_type *s_type;
	char s_id[32];
};

struct block_device {
	u32 bd_dev;
};

struct journal_s {
	unsigned long j_flags;
	struct block_device *j_dev;
	struct block_device *j_fs_dev;
};

struct workqueue_struct {
	unsigned int flags;
	char name[24];
};

struct pool_workqueue {
	void *pool;
	struct workqueue_struct *wq;
};

struct ns_common {
	atomic_long_t stashed;
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct device_driver {
	const char *name;
};

struct device {
	struct device *parent;
	struct device_driver *driver;
};

struct net_device {
	char name[16];
	int ifindex;
	unsigned int flags;
	possible_net_t nd_net;
	struct device dev;
};

struct netdev_queue {
	struct net_device *dev;
};

struct in6_addr {
	union {
		u8 u6_addr8[16];
		u32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	union {
		u64 skc_addrpair;
		struct {
			u32 skc_daddr;
			u32 skc_rcv_saddr;
		};
	};
	union {
		u32 skc_portpair;
		struct {
			u16 skc_dport;
			u16 skc_num;
		};
	};
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct sock_cgroup_data {
	union {
		struct {
			u8 is_data;
			u8 padding;
			u16 prioidx;
			u32 classid;
		};
		u64 val;
	};
};

struct sock {
	struct sock_common __sk_common;
	unsigned int __sk_flags_offset[0];
	unsigned int sk_padding : 1, sk_kern_sock : 1, sk_no_check_tx : 1, sk_no_check_rx : 1, sk_userlocks : 4,
		sk_protocol : 8, sk_type : 16;
	u16 sk_gso_max_segs;
	int sk_err;
	u32 sk_ack_backlog;
	u32 sk_max_ack_backlog;
	struct sock_cgroup_data sk_cgrp_data;
};

struct inet_sock {
	struct sock sk;
	u16 inet_sport;
};

struct request_sock {
	struct sock_common __req_common;
	struct request_sock *dl_next;
	u16 mss;
	u8 num_retrans;
	u8 cookie_ts : 1;
	u8 num_timeout : 7;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	u8 icsk_ca_state : 6, icsk_ca_setsockopt : 1, icsk_ca_dst_locked : 1;
	u8 icsk_retransmits;
	u8 icsk_pending;
	u8 icsk_backoff;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	u32 srtt_us;
	u32 mdev_us;
	u32 snd_ssthresh;
	u32 snd_cwnd;
	u32 packets_out;
	u32 retrans_out;
	u32 lost_out;
	u32 mss_cache;
	u32 total_retrans;
};

struct tcp_skb_cb {
	u32 seq;
	u32 end_seq;
	u8 tcp_flags;
};

struct sk_buff {
	union {
		struct {
			struct sk_buff *next;
			struct sk_buff *prev;
			union {
				struct net_device *dev;
				unsigned long dev_scratch;
			};
		};
	};
	struct sock *sk;
	s64 tstamp;
	char cb[48];
	unsigned int len;
	u16 queue_mapping;
	u8 pkt_type : 3;
	u16 protocol;
	u16 transport_header;
	u16 network_header;
	u16 mac_header;
	unsigned int tail;
	unsigned char *head;
	unsigned char *data;
};

/* What only members point to would not get into BTF. */
#define KEEP(type) struct type *keep_##type
KEEP(kernfs_node);
KEEP(cgroup_subsys_state);
KEEP(cgroup);
KEEP(css_set);
KEEP(page_counter);
KEEP(mem_cgroup);
KEEP(mm_rss_stat);
KEEP(mm_struct);
KEEP(signal_struct);
KEEP(sigaction);
KEEP(k_sigaction);
KEEP(linux_binprm);
KEEP(nsproxy);
KEEP(module);
KEEP(cfs_rq);
KEEP(task_struct);
KEEP(fdtable);
KEEP(files_struct);
KEEP(pt_regs);
KEEP(bpf_perf_event_data);
KEEP(compact_control);
KEEP(trace_event_raw_mm_vmscan_direct_reclaim_begin_template);
KEEP(trace_event_raw_kfree_skb);
KEEP(gendisk);
KEEP(request_queue);
KEEP(bio);
KEEP(request);
KEEP(qstr);
KEEP(dentry);
KEEP(path);
KEEP(inode);
KEEP(file);
KEEP(address_space);
KEEP(file_system_type);
KEEP(super_block);
KEEP(block_device);
KEEP(journal_s);
KEEP(workqueue_struct);
KEEP(pool_workqueue);
KEEP(ns_common);
KEEP(net);
KEEP(device_driver);
KEEP(device);
KEEP(net_device);
KEEP(netdev_queue);
KEEP(in6_addr);
KEEP(sock_common);
KEEP(sock_cgroup_data);
KEEP(sock);
KEEP(inet_sock);
KEEP(request_sock);
KEEP(inet_connection_sock);
KEEP(tcp_sock);
KEEP(tcp_skb_cb);
KEEP(sk_buff);
enum cgroup_subsys_id keep_cgroup_subsys_id;
