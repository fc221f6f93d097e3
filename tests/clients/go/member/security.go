package member

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"os"
	"strings"
)

// Security is how to come in where an agent asks who is there: the content of the file PATH.json, when the setting
// `security` is PATH. Without that setting it is empty.
type Security struct {
	Protocol    string
	Mechanism   string
	User        string
	Password    string
	Token       string
	CA          string
	Certificate string
	Key         string
}

// Security reads the file; a failure ends the program.
func (job Job) Security() Security {
	var security Security
	if path := job.Setting("security", ""); path != "" {
		if err := json.Unmarshal(read(path+".json"), &security); err != nil {
			fail(err)
		}
	}
	return security
}

// TLS is nil where the protocol goes without.
func (security Security) TLS() *tls.Config {
	if !strings.HasSuffix(security.Protocol, "SSL") {
		return nil
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(read(security.CA))
	config := &tls.Config{RootCAs: trusted}
	if security.Certificate != "" {
		shown, err := tls.LoadX509KeyPair(security.Certificate, security.Key)
		if err != nil {
			fail(err)
		}
		config.Certificates = []tls.Certificate{shown}
	}
	return config
}

func read(path string) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		fail(err)
	}
	return content
}
