// Package sftp copies files to and from an SSH server, and every call of it
// returns: within its context, the silence that package ssh allows a server, and
// [Options].Idle, the time in which the server may leave requests unanswered.
//
//	files, err := sftp.New(ctx, client, sftp.Options{})
//	if err != nil {
//		return err
//	}
//	defer files.Close()
//	result, err := files.Put(ctx, "build/app", "/opt/app/app", sftp.Copy{Resume: true})
//
// A copy is written under another name next to its target and takes the
// target's name when it is complete, at once: nobody sees a half. So a target
// that was there is replaced: its owner, its other hard links and what it
// pointed to if it was a symbolic link are not touched.
//
// The server is not trusted. It is version 3 of the protocol
// (draft-ietf-secsh-filexfer-02) that is spoken, which OpenSSH has, by code that
// takes any bytes for an answer without harm. Names in a directory that are not
// plain names are an error ([ErrName]), nothing is written outside of the target
// (see [os.Root]), and symbolic links that lead out of it are not made unless
// asked for.
//
// The files on this side are read and written as the operating system does it: a
// network file system that does not answer holds a call beyond its context.
package sftp
