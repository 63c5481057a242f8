module postbus.example/interop

go 1.26.0

require (
	github.com/bufbuild/protocompile v0.14.1
	github.com/go-kit/kit v0.13.0
	github.com/nats-io/nats.go v1.55.0
	github.com/sony/gobreaker v0.4.1
	github.com/synadia-io/orbit.go/natsext v0.1.3
	golang.org/x/time v0.16.0
	google.golang.org/protobuf v1.36.12
	postbus.example v0.0.0
)

require (
	connectrpc.com/connect v1.21.1 // indirect
	github.com/afex/hystrix-go v0.0.0-20180502004556-fa1af6a1f4f5 // indirect
	github.com/antithesishq/antithesis-sdk-go v0.8.0-default-no-op // indirect
	github.com/go-kit/log v0.2.0 // indirect
	github.com/go-logfmt/logfmt v0.5.1 // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/minio/highwayhash v1.0.4 // indirect
	github.com/nats-io/jwt/v2 v2.8.2 // indirect
	github.com/nats-io/nats-server/v2 v2.15.2 // indirect
	github.com/nats-io/nkeys v0.4.16 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	github.com/smartystreets/goconvey v1.8.1 // indirect
	github.com/sony/gobreaker/v2 v2.4.0 // indirect
	github.com/streadway/handy v0.0.0-20200128134331-0f66f006fb2e // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sync v0.19.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace postbus.example => ../

tool google.golang.org/protobuf/cmd/protoc-gen-go
