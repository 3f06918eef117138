/*
 * numtcpsock, numothersock: sockets that a task has, of every family. The kernel's own (kern) are nobody's. What is charged is the inode that
 * a socket is part of: it goes when the socket goes, and for an accepted one it is there before the connection is.
 */
#include "charge.h"

static __always_inline const void *inode_of(const struct socket *socket)
{
	return (const char *)socket + bpf_core_field_offset(struct socket_alloc, vfs_inode);
}

static __always_inline __u32 resource_of(int family, int type, int protocol)
{
	int inet = family == AF_INET || family == AF_INET6;
	int tcp = protocol == IPPROTO_IP || protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;

	return inet && type == SOCK_STREAM && tcp ? NUMTCPSOCK : NUMOTHERSOCK;
}

SEC("lsm/socket_post_create")
int BPF_PROG(vz_socket_create, struct socket *socket, int family, int type, int protocol, int kern)
{
	if (kern)
		return 0;
	return charge(inode_of(socket), resource_of(family, type, protocol), HARD) ? 0 : -ENOBUFS;
}

/* Before the connection is taken from the queue: one that is refused stays there, for when there is room. */
SEC("lsm/socket_accept")
int BPF_PROG(vz_socket_accept, struct socket *listener, struct socket *accepted)
{
	struct sock *sk = listener->sk;

	if (!sk)
		return 0;
	return charge(inode_of(accepted), resource_of(sk->__sk_common.skc_family, listener->type, sk->sk_protocol), HARD)
		? 0 : -ENOBUFS;
}

SEC("lsm/inode_free_security")
int BPF_PROG(vz_socket_free, struct inode *inode)
{
	if ((inode->i_mode & S_IFMT) == S_IFSOCK)
		uncharge(inode);
	return 0;
}
