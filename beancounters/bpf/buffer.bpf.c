/*
 * tcpsndbuf, tcprcvbuf, othersockbuf, dgramrcvbuf: the memory of what is queued in sockets, with what the kernel needs around it (truesize).
 *
 * The kernel counts it for each socket itself. What a container has is the sum of what was last seen of its sockets, and a socket is looked at
 * whenever something comes or goes. So no error lasts longer than until the next of these, and what goes with a socket is what came with it.
 *
 * Packets are handled on behalf of whoever runs: a socket is of the container whose task made it, or of its listener's.
 */
#include "charge.h"
#include <bpf/bpf_endian.h>

TABLE(buffers, struct buffers, 3)

/* The buffers of a socket of a container: most others are told by their network namespace. */
static __always_inline struct buffers *buffers_of(const struct sock *sk)
{
	__u64 key = (__u64)sk;

	if (!sk || sk->__sk_common.skc_net.net->user_ns->level == 0)
		return 0;
	return buffers_find(key);
}

static __always_inline struct slot *slot_of_buffers(const struct buffers *of)
{
	return slot_of_use(of->slot, of->generation);
}

/* An address that was used before has nothing to give back any more: see vz_buffer_free. */
static __always_inline void begin(const struct sock *sk, struct slot *slot, const struct buffers *new)
{
	__u64 key = (__u64)sk;
	struct buffers *before = buffers_find(key);

	if (before)
		*before = *new;
	else if (buffers_put(key, new) && slot)
		__sync_fetch_and_add(&slot->uncharged, 1);
}

/* A connection is of the container whose listener it came to. */
static __always_inline void inherit(const struct sock *sk, const struct sock *listener)
{
	__u64 key = (__u64)listener;
	struct buffers *parent, new = {};

	if (sk->__sk_common.skc_net.net->user_ns->level == 0)
		return;
	parent = buffers_find(key);
	if (!parent)
		return;
	new.slot = parent->slot;
	new.generation = parent->generation;
	new.tcp = parent->tcp;
	begin(sk, slot_of_buffers(parent), &new);
}

static __always_inline void settle(struct slot *slot, __u32 resource, __u64 *part, __u64 now)
{
	struct counter *counter = &slot->counters[resource];
	__u64 before;

	if (*part == now)
		return;
	before = __sync_lock_test_and_set(part, now);
	if (now > before)
		seen(counter, __sync_fetch_and_add(&counter->held, now - before) + now - before);
	else
		__sync_fetch_and_sub(&counter->held, before - now);
}

static __always_inline __u64 less(int queued, int going)
{
	return queued > going ? queued - going : 0;
}

/* `going` is what is still counted by the kernel and no more in a moment. */
static __always_inline void settle_received(const struct sock *sk, struct buffers *of, int going)
{
	struct slot *slot = slot_of_buffers(of);

	if (slot)
		settle(slot, of->tcp ? TCPRCVBUF : DGRAMRCVBUF, &of->received, less(sk->sk_backlog.rmem_alloc.counter, going));
}

/* A socket that is not of TCP counts itself as one byte. */
static __always_inline int queued_to_send(const struct sock *sk, const struct buffers *of)
{
	return of->tcp ? sk->sk_wmem_queued : sk->sk_wmem_alloc.refs.counter - 1;
}

static __always_inline void settle_sent(const struct sock *sk, struct buffers *of, int going)
{
	struct slot *slot = slot_of_buffers(of);
	__u64 now = less(queued_to_send(sk, of), going), reserved = of->reserved;

	if (slot)
		settle(slot, of->tcp ? TCPSNDBUF : OTHERSOCKBUF, &of->sent, now > reserved ? now : reserved);
}

/* K6: above the barrier each socket may have its share of what is between barrier and limit. */
static __always_inline enum manner manner_of(const struct slot *slot, __u32 resource, __u32 sockets, __u64 would_have)
{
	const struct counter *counter = &slot->counters[resource];
	__u64 barrier = counter->barrier, limit = counter->limit, number = slot->counters[sockets].limit;

	return limit > barrier && number && would_have <= (limit - barrier) / number ? SOFT : HARD;
}

/* Whether `more` may be queued. Nothing is held by that: it may not come to be queued, and what is will be seen. */
static __always_inline int fits(struct slot *slot, __u32 resource, __u64 more, enum manner manner)
{
	const struct counter *counter = &slot->counters[resource];
	__u64 barrier = counter->barrier, limit = counter->limit;
	__u32 at_limit = manner == SOFT || limit < barrier;
	__s64 held = counter->held;

	/* What was given back may be seen before what was taken. */
	if ((held > 0 ? held : 0) + more <= (at_limit ? limit : barrier))
		return 1;
	refuse(slot, resource, more, at_limit);
	return 0;
}

/* Of the kernel's own sockets only those that multipath TCP makes for a task's. */
SEC("lsm/socket_post_create")
int BPF_PROG(vz_buffer_create, struct socket *socket, int family, int type, int protocol, int kern)
{
	int inet = family == AF_INET || family == AF_INET6;
	struct buffers new = {};
	struct slot *slot;

	new.tcp = inet && type == SOCK_STREAM &&
		  (protocol == IPPROTO_IP || protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP);
	if (kern && !new.tcp)
		return 0;
	slot = current_slot(&new.slot);
	if (!slot || !socket->sk)
		return 0;
	new.generation = slot->generation;
	begin(socket->sk, slot, &new);
	return 0;
}

SEC("lsm/inet_csk_clone")
int BPF_PROG(vz_buffer_clone, struct sock *sk, const struct request_sock *request)
{
	inherit(sk, BPF_CORE_READ(request, __req_common.skc_listener));
	return 0;
}

SEC("lsm/unix_stream_connect")
int BPF_PROG(vz_buffer_connect, struct sock *sk, struct sock *listener, struct sock *accepted)
{
	inherit(accepted, listener);
	return 0;
}

/* The last that is heard of a socket. Nothing is left to be given back should its entry stay, for the kernel may refuse to delete it now. */
SEC("lsm/sk_free_security")
int BPF_PROG(vz_buffer_free, struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct buffers *found = buffers_find(key), was;
	struct slot *slot;

	if (!found)
		return 0;
	slot = slot_of_buffers(found);
	if (slot) {
		settle(slot, found->tcp ? TCPRCVBUF : DGRAMRCVBUF, &found->received, 0);
		settle(slot, found->tcp ? TCPSNDBUF : OTHERSOCKBUF, &found->sent, 0);
	}
	buffers_take(key, &was);
	return 0;
}

#define OVERHEAD 768		/* of a packet: struct sk_buff, skb_shared_info, room for headers */
#define STREAM_CHUNK 32768	/* what must fit for some of a stream to be written */

/* Those whose sendmsg is seen to end, below; netlink charges the receiver. */
static __always_inline int charges_the_sender(__u32 family)
{
	return family == AF_INET || family == AF_INET6 || family == AF_UNIX || family == AF_PACKET;
}

/*
 * ENOBUFS, and not EAGAIN for sockets that don't block: poll would say that they can be written. Once begun, a write goes on as its reader reads,
 * so all that the socket's buffer has room for is reserved until it ends. With no room the kernel itself makes the writer wait.
 */
SEC("lsm/socket_sendmsg")
int BPF_PROG(vz_buffer_send, struct socket *socket, struct msghdr *message, int size)
{
	struct sock *sk = socket->sk;
	struct buffers *of = buffers_of(sk);
	enum manner manner;
	__u64 most, wanted;
	struct slot *slot;
	int queued, room;
	__u32 resource;

	if (!of || size < 0 || !charges_the_sender(sk->__sk_common.skc_family))
		return 0;
	slot = slot_of_buffers(of);
	queued = queued_to_send(sk, of);
	room = sk->sk_sndbuf - queued;
	if (!slot || room <= 0)
		return 0;
	most = (size < room ? size : room) + OVERHEAD;
	wanted = sk->sk_type == SOCK_STREAM && most > STREAM_CHUNK ? STREAM_CHUNK : most;
	resource = of->tcp ? TCPSNDBUF : OTHERSOCKBUF;
	manner = manner_of(slot, resource, of->tcp ? NUMTCPSOCK : NUMOTHERSOCK, of->sent + wanted);
	if (!fits(slot, resource, wanted, manner))
		return -ENOBUFS;
	of->reserved = less(queued, 0) + most;
	settle_sent(sk, of, 0);
	return 0;
}

/* The host's privilege, as it was in K6: in a container that is bounded no buffer grows past what the host allows everybody. */
SEC("lsm/socket_setsockopt")
int BPF_PROG(vz_buffer_force, struct socket *socket, int level, int option)
{
	struct buffers *of;
	struct slot *slot;
	__u32 resource;

	if (level != SOL_SOCKET || (option != SO_SNDBUFFORCE && option != SO_RCVBUFFORCE))
		return 0;
	of = buffers_of(socket->sk);
	if (!of)
		return 0;
	slot = slot_of_buffers(of);
	if (option == SO_SNDBUFFORCE)
		resource = of->tcp ? TCPSNDBUF : OTHERSOCKBUF;
	else
		resource = of->tcp ? TCPRCVBUF : DGRAMRCVBUF;
	return slot && slot->counters[resource].barrier < UNLIMITED ? -EPERM : 0;
}

struct tcp_header {
	__be16 ports[2];
	__be32 sequence;
	__be32 acknowledged;
	__u8 words;		/* of the header, above four other bits */
};

/*
 * What brings no data is let through, and so is what a reader who has read everything waits for: without it no connection would come to its end.
 */
static __always_inline int must_be_received(const struct sock *sk, const struct sk_buff *packet)
{
	struct tcp_header header;

	if (sk->__sk_common.skc_state == TCP_LISTEN || bpf_probe_read_kernel(&header, sizeof(header), packet->data))
		return 1;
	if (packet->len <= (header.words >> 4) * 4)
		return 1;
	return sk->sk_receive_queue.qlen == 0 &&
	       (__s32)(bpf_ntohl(header.sequence) - BPF_CORE_READ((const struct tcp_sock *)sk, rcv_nxt)) <= 0;
}

/* A datagram that is refused is lost, a segment of TCP comes again. What UNIX sockets receive is the sender's. */
SEC("lsm/socket_sock_rcv_skb")
int BPF_PROG(vz_buffer_receive, struct sock *sk, struct sk_buff *packet)
{
	enum manner manner;
	struct buffers *of;
	struct slot *slot;

	if (sk->__sk_common.skc_family == AF_UNIX)
		return 0;
	of = buffers_of(sk);
	if (!of)
		return 0;
	slot = slot_of_buffers(of);
	if (!slot || (of->tcp && must_be_received(sk, packet)))
		return 0;
	if (!of->tcp)
		return fits(slot, DGRAMRCVBUF, packet->truesize, HARD) ? 0 : -ENOBUFS;
	manner = manner_of(slot, TCPRCVBUF, NUMTCPSOCK, of->received + packet->truesize);
	return fits(slot, TCPRCVBUF, packet->truesize, manner) ? 0 : -ENOBUFS;
}

/* What has come. */

SEC("fexit/__udp_enqueue_schedule_skb")
int BPF_PROG(vz_buffer_udp, struct sock *sk)
{
	struct buffers *of = buffers_of(sk);

	if (of)
		settle_received(sk, of, 0);
	return 0;
}

SEC("fentry/sock_def_readable")
int BPF_PROG(vz_buffer_readable, struct sock *sk)
{
	struct buffers *of = buffers_of(sk);

	if (of)
		settle_received(sk, of, 0);
	return 0;
}

/* And what was acknowledged. */
#define SEGMENT(name, handler) \
	SEC("fexit/" #handler) \
	int BPF_PROG(vz_buffer_segment_##name, struct sock *sk) \
	{ \
		struct buffers *of = buffers_of(sk); \
\
		if (of) { \
			settle_received(sk, of, 0); \
			settle_sent(sk, of, 0); \
		} \
		return 0; \
	}

SEGMENT(established, tcp_rcv_established)
SEGMENT(other, tcp_rcv_state_process)

/* What has gone. */

SEC("fentry/sock_rfree")
int BPF_PROG(vz_buffer_read, struct sk_buff *packet)
{
	struct sock *sk = packet->sk;
	struct buffers *of = buffers_of(sk);

	if (of)
		settle_received(sk, of, packet->truesize);
	return 0;
}

SEC("fentry/sock_wfree")
int BPF_PROG(vz_buffer_delivered, struct sk_buff *packet)
{
	struct sock *sk = packet->sk;
	struct buffers *of = buffers_of(sk);

	if (of && !of->tcp)
		settle_sent(sk, of, packet->truesize);
	return 0;
}

/* UDP gives back what was read when it likes. */
#define READ(name, call) \
	SEC("fexit/" #call) \
	int BPF_PROG(vz_buffer_read_##name, struct socket *socket) \
	{ \
		struct sock *sk = socket->sk; \
		struct buffers *of = buffers_of(sk); \
\
		if (of) \
			settle_received(sk, of, 0); \
		return 0; \
	}

READ(inet, inet_recvmsg)
READ(inet6, inet6_recvmsg)

/* What was written, all or some of it or nothing. */
#define SENT(name, call) \
	SEC("fexit/" #call) \
	int BPF_PROG(vz_buffer_sent_##name, struct socket *socket) \
	{ \
		struct sock *sk = socket->sk; \
		struct buffers *of = buffers_of(sk); \
\
		if (of) { \
			of->reserved = 0; \
			settle_sent(sk, of, 0); \
		} \
		return 0; \
	}

SENT(inet, inet_sendmsg)
SENT(inet6, inet6_sendmsg)
SENT(unix_stream, unix_stream_sendmsg)
SENT(unix_datagram, unix_dgram_sendmsg)
SENT(unix_seqpacket, unix_seqpacket_sendmsg)
SENT(packet, packet_sendmsg)
SENT(packet_old, packet_sendmsg_spkt)
