package hubamqp

// Keys of log lines.
const (
	keyAddr      = "addr"
	keyTransport = "transport"
	keyHost      = "host"
	keyName      = "name"
	keyPartition = "partition"
	keyDevice    = "device"
	keyMessageID = "messageId"
	keyBytes     = "bytes"
	keyRecords   = "records"
	keyWait      = "wait"
	keyErr       = "err"
)
