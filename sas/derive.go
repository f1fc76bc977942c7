package sas

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
)

// DeriveKey returns the key of a device that registers by an enrollment group whose key is group: the HMAC-SHA256 of
// its registration id. The id counts as it is written: "Dev-1" and "dev-1" have different keys. The key of the group
// stays where devices are made, a device has its own alone. An error means that group is no key, see [Key.Validate],
// or that there is no id.
//
// See the article "Symmetric key attestation", "Group enrollments".
func DeriveKey(group Key, registrationID string) (Key, error) {
	secret, err := group.decode()
	if err != nil {
		return "", err
	}
	if registrationID == "" {
		return "", errors.New("the registration id is empty")
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(registrationID))
	return Key(base64.StdEncoding.EncodeToString(mac.Sum(nil))), nil
}
