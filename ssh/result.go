package ssh

import "context"

// Result is what a command left behind.
type Result struct {
	Stdout, Stderr []byte // what had come when the call returned, up to Config.MaxOutput each
	Dropped        int64  // bytes beyond that; the output is truncated if it is not zero
	Exit           Exit   // how it ended; of no meaning unless Exited
	Exited         bool   // whether the server has said how it ended
}

// Run runs a command and returns what it wrote, also when it failed. The error
// is that of [Command.Run].
func (c *Client) Run(ctx context.Context, line string) (Result, error) {
	return c.Command(line).result(ctx)
}

func (cmd *Command) result(ctx context.Context) (Result, error) {
	stdout, stderr := cmd.buffer(), cmd.buffer()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run(ctx)
	r := Result{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), Dropped: stdout.Dropped() + stderr.Dropped()}
	r.Exit, r.Exited = cmd.Exit()
	return r, err
}
