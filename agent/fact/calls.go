package fact

import "time"

// Exchange is who spoke, how much and when: what tells a call that waits for
// its answer. Times are ages at the moment of the look.
type Exchange struct {
	LastSent     time.Duration // since data was last sent (tcpi_last_data_sent)
	LastReceived time.Duration // since data last came (tcpi_last_data_recv); counts from the handshake when none ever did
	Acked        Known[uint64] // bytes the peer acknowledged over the connection's life (tcpi_bytes_acked, Linux 4.1)
	Received     Known[uint64] // bytes that came (tcpi_bytes_received, Linux 4.1)
	SegmentsOut  Known[uint32] // with data (tcpi_data_segs_out, Linux 4.6)
	SegmentsIn   Known[uint32] // with data (tcpi_data_segs_in, Linux 4.6)
}
