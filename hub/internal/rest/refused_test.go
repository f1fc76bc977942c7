package rest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/node"
)

// A refusal is a document that is refused, and what the answer says.
type refusal struct {
	body, code, text string
}

const (
	methodJobBody     = `{"type":"scheduleDeviceMethod","cloudToDeviceMethod":{"methodName":"reboot","payload":null},"queryCondition":"*"}`
	configurationBody = `{"content":{"deviceContent":{"properties.desired.a":1}},"targetCondition":"tags.a = 1","priority":1,"metrics":{"queries":{"m":"SELECT deviceId FROM devices"}}}`
)

// changed returns a document with one of its texts replaced.
func changed(document, old, new string) string { return strings.Replace(document, old, new, 1) }

// nested is JSON of objects in objects.
func nested(depth int) string {
	return strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)
}

func large(n int) string {
	var members []string
	for i := range n / 4000 {
		members = append(members, fmt.Sprintf(`"m%d":"%s"`, i, strings.Repeat("x", 4000)))
	}
	return "{" + strings.Join(members, ",") + "}"
}

// badJobs are jobs that are refused with status 400, unless their code says
// otherwise. Each is wrong in one way.
var badJobs = map[string]refusal{
	"no body":                           {"", "ArgumentNull", "BadRequest"},
	"no JSON":                           {twinJobBody[:40], "IotHubFormatError", "the body is not JSON: unexpected end of JSON input"},
	"an array":                          {"[]", "ArgumentInvalid", "the body must not be of type array"},
	"nothing":                           {"null", "ArgumentInvalid", "queryCondition is required. '*' is all devices"},
	"an etag that is not *":             {changed(twinJobBody, `"etag":"*"`, `"etag":"AAAAAAAAAAE="`), "ArgumentInvalid", "Missing or invalid etag for job type ScheduleUpdateTwin. ScheduleUpdateTwin job type is a force update, which only accepts '*' as the Etag."},
	"no etag":                           {changed(twinJobBody, `"etag":"*",`, ``), "ArgumentInvalid", "Missing or invalid etag for job type ScheduleUpdateTwin. ScheduleUpdateTwin job type is a force update, which only accepts '*' as the Etag."},
	"another id":                        {changed(twinJobBody, `job-1`, `job-2`), "ArgumentInvalid", "jobId in the body is not the one of the path"},
	"a type of the preview":             {changed(twinJobBody, `scheduleUpdateTwin`, `scheduleTwinUpdate`), "GenericBadRequest", "job type 'scheduleTwinUpdate' must be scheduleDeviceMethod or scheduleUpdateTwin"},
	"no type":                           {changed(twinJobBody, `"type":"scheduleUpdateTwin",`, ``), "GenericBadRequest", "job type '' must be scheduleDeviceMethod or scheduleUpdateTwin"},
	"a type of another type":            {changed(twinJobBody, `"scheduleUpdateTwin"`, `1`), "ArgumentInvalid", "type must not be of type number"},
	"a start that is no time":           {changed(twinJobBody, `2026-03-14T09:26:53.000Z`, `tomorrow`), "ArgumentInvalid", "startTime 'tomorrow' must be a time such as 2026-01-04T15:53:00Z"},
	"a start that is null":              {changed(twinJobBody, `"2026-03-14T09:26:53.000Z"`, `null`), "ArgumentInvalid", "startTime must be a time such as 2026-01-04T15:53:00Z"},
	"a start that is a number":          {changed(twinJobBody, `"2026-03-14T09:26:53.000Z"`, `5`), "ArgumentInvalid", "startTime must be a time such as 2026-01-04T15:53:00Z"},
	"a negative time to run":            {changed(twinJobBody, `:120`, `:-1`), "ArgumentInvalid", "maxExecutionTimeInSeconds must be within [0; 2592000]."},
	"a time to run beyond the history":  {changed(twinJobBody, `:120`, `:2592001`), "ArgumentInvalid", "maxExecutionTimeInSeconds must be within [0; 2592000]."},
	"a time to run that is no integer":  {changed(twinJobBody, `:120`, `:1.5`), "ArgumentInvalid", "maxExecutionTimeInSeconds must not be of type number 1.5"},
	"a time to run that is no number":   {changed(twinJobBody, `:120`, `:"1h"`), "ArgumentInvalid", "maxExecutionTimeInSeconds must not be of type string"},
	"a time to run that is huge":        {changed(twinJobBody, `:120`, `:1e30`), "ArgumentInvalid", "maxExecutionTimeInSeconds must not be of type number 1e30"},
	"no condition":                      {changed(twinJobBody, `"queryCondition":"*",`, ``), "ArgumentInvalid", "queryCondition is required. '*' is all devices"},
	"a condition of another type":       {changed(twinJobBody, `"queryCondition":"*"`, `"queryCondition":{}`), "ArgumentInvalid", "queryCondition must not be of type object"},
	"a condition that is too long":      {changed(twinJobBody, `"queryCondition":"*"`, `"queryCondition":"`+strings.Repeat("x", 8193)+`"`), "PreconditionFailed", "The etag in the request does not match the etag of the existing resource, as per RFC7232, or queryCondition is longer than 8192 characters"},
	"no twin":                           {`{"type":"scheduleUpdateTwin","queryCondition":"*"}`, "ArgumentInvalid", "a scheduleUpdateTwin job needs updateTwin"},
	"a twin of members elsewhere":       {changed(twinJobBody, `"tags":{"ring":"2"},"properties":{"desired":{"rate":10,"old":null},"reported":{}}`, `"desired":{"rate":10}`), "ArgumentInvalid", "updateTwin needs tags or properties.desired"},
	"a twin of reported properties":     {changed(twinJobBody, `"tags":{"ring":"2"},"properties":{"desired":{"rate":10,"old":null},"reported":{}}`, `"tags":null,"properties":{"reported":{"rate":10}}`), "ArgumentInvalid", "updateTwin needs tags or properties.desired"},
	"a twin without tags or properties": {changed(twinJobBody, `"tags":{"ring":"2"},"properties":{"desired":{"rate":10,"old":null},"reported":{}},`, ``), "ArgumentInvalid", "updateTwin needs tags or properties.desired"},
	"no method":                         {`{"type":"scheduleDeviceMethod","queryCondition":"*"}`, "ArgumentInvalid", "a scheduleDeviceMethod job needs cloudToDeviceMethod"},
	"a method without a name":           {changed(methodJobBody, `reboot`, ``), "ArgumentNull", "methodName is required"},
	"a method with a blank":             {changed(methodJobBody, `reboot`, `re boot`), "ArgumentInvalid", "methodName must not contain ' '"},
	"a method with a long name":         {changed(methodJobBody, `reboot`, strings.Repeat("x", 101)), "ArgumentInvalid", "methodName must be at most 100 characters"},
	"a method that has no time":         {changed(methodJobBody, `"payload"`, `"responseTimeoutInSeconds":4,"payload"`), "ArgumentInvalid", "responseTimeoutInSeconds must be within [5; 300]."},
	"a method that has too much time":   {changed(methodJobBody, `"payload"`, `"responseTimeoutInSeconds":"301","payload"`), "ArgumentInvalid", "responseTimeoutInSeconds must be within [5; 300]."},
	"a method that waits too long":      {changed(methodJobBody, `"payload"`, `"connectTimeoutInSeconds":301,"payload"`), "ArgumentInvalid", "connectTimeoutInSeconds must be within [0; 300]."},
	"a method with a huge payload":      {changed(methodJobBody, `null`, large(131073+4000)), "MessageTooLarge", "payload must be at most 131072 bytes"},
	"a body that is huge":               {changed(methodJobBody, `null`, large(300000)), "MessageTooLarge", "the body must be at most 163840 bytes"},
	"tags that are a text":              {changed(twinJobBody, `{"ring":"2"}`, `"2"`), "ArgumentInvalid", "The document is not a JSON object."},
	"tags with a hash":                  {changed(twinJobBody, `"ring"`, `"ri#ng"`), "ArgumentInvalid", "Property or Tag name has invalid characters. Error in Property/Tag ri#ng. Must not contain Control Characters, '.', '$', '#', or ' '."},
	"tags with a dollar":                {changed(twinJobBody, `"ring"`, `"$ring"`), "ArgumentInvalid", "Property or Tag name has invalid characters. Error in Property/Tag $ring. Must not contain Control Characters, '.', '$', '#', or ' '."},
	"tags that are too large":           {changed(twinJobBody, `{"ring":"2"}`, large(12000)), "DeviceModelMaxPropertiesExceeded", "'Tags' size should be less than 8192 bytes."},
	"properties that are too deep":      {changed(twinJobBody, `{"rate":10,"old":null}`, nested(12)), "ArgumentInvalid", "Property or Tag should be nested at most 10 levels deep. Error in Property/Tag a (a.a.a.a.a.a.a.a.a.a.a)"},
	"properties with null in an array":  {changed(twinJobBody, `"rate":10`, `"rate":[null]`), "ArgumentInvalid", "Value of Property or Tag cannot be null. Error in Property/Tag rate (rate[0])"},
	"properties that are too large":     {changed(twinJobBody, `{"rate":10,"old":null}`, large(40000)), "DeviceModelMaxPropertiesExceeded", "'Properties.Desired' size should be less than 32768 bytes."},
	"an integer that no twin can take":  {changed(twinJobBody, `"rate":10`, `"rate":4503599627370496`), "ArgumentInvalid", "Property or Tag value should be an integer from -4503599627370496 to 4503599627370495. Error in Property/Tag rate"},
	"a text that is longer than 4 KiB":  {changed(twinJobBody, `"rate":10`, `"rate":"`+strings.Repeat("x", 4097)+`"`), "ArgumentInvalid", "Property or Tag value should be maximum 4096 bytes. Error in Property/Tag rate"},
	"properties that are of an integer": {changed(twinJobBody, `"properties":{"desired":{"rate":10,"old":null},"reported":{}}`, `"properties":5`), "ArgumentInvalid", "updateTwin.properties must not be of type number"},
}

// badConfigurations are configurations that are refused.
var badConfigurations = map[string]refusal{
	"no body":                        {"", "ArgumentNull", "BadRequest"},
	"no JSON":                        {configurationBody[:30], "IotHubFormatError", "the body is not JSON: unexpected end of JSON input"},
	"a text":                         {`"text"`, "ArgumentInvalid", "the body must not be of type string"},
	"nothing":                        {`null`, "InvalidConfigurationContent", "content needs exactly one of deviceContent, moduleContent and modulesContent"},
	"another id":                     {changed(configurationBody, `{`, `{"id":"other",`), "ArgumentInvalid", "id in the body is not the one of the path"},
	"no content":                     {`{"targetCondition":"*"}`, "InvalidConfigurationContent", "content needs exactly one of deviceContent, moduleContent and modulesContent"},
	"empty content":                  {`{"content":{"deviceContent":{},"moduleContent":{},"modulesContent":null}}`, "InvalidConfigurationContent", "content needs exactly one of deviceContent, moduleContent and modulesContent"},
	"content of two kinds":           {changed(configurationBody, `"content":{`, `"content":{"moduleContent":{"properties.desired.a":1},`), "InvalidConfigurationContent", "content needs exactly one of deviceContent, moduleContent and modulesContent"},
	"content of another type":        {changed(configurationBody, `{"properties.desired.a":1}`, `[]`), "ArgumentInvalid", "content.deviceContent must not be of type array"},
	"no object of all properties":    {changed(configurationBody, `"properties.desired.a":1`, `"properties.desired":[1]`), "InvalidConfigurationContent", "properties.desired must be an object"},
	"null for all properties":        {changed(configurationBody, `"properties.desired.a":1`, `"properties.desired":null`), "InvalidConfigurationContent", "properties.desired must be an object"},
	"a reported property":            {changed(configurationBody, `desired`, `reported`), "InvalidConfigurationContent", "path 'properties.reported.a' must be 'properties.desired' or like 'properties.desired.interval'"},
	"tags":                           {changed(configurationBody, `properties.desired.a`, `tags.a`), "InvalidConfigurationContent", "path 'tags.a' must be 'properties.desired' or like 'properties.desired.interval'"},
	"a path with a hole":             {changed(configurationBody, `desired.a`, `desired.a..b`), "InvalidConfigurationContent", "path 'properties.desired.a..b' must be 'properties.desired' or like 'properties.desired.interval'"},
	"a path that ends early":         {changed(configurationBody, `desired.a`, `desired.`), "InvalidConfigurationContent", "path 'properties.desired.' must be 'properties.desired' or like 'properties.desired.interval'"},
	"a name with a hash":             {changed(configurationBody, `desired.a`, `desired.a#b`), "InvalidConfigurationContent", "Property or Tag name has invalid characters. Error in Property/Tag a#b. Must not contain Control Characters, '.', '$', '#', or ' '."},
	"a name with a dollar":           {changed(configurationBody, `desired.a`, `desired.$a`), "InvalidConfigurationContent", "Property or Tag name has invalid characters. Error in Property/Tag $a. Must not contain Control Characters, '.', '$', '#', or ' '."},
	"a value that is too deep":       {changed(configurationBody, `:1}}`, `:`+nested(11)+`}}`), "InvalidConfigurationContent", "Property or Tag should be nested at most 10 levels deep. Error in Property/Tag a (a.a.a.a.a.a.a.a.a.a.a)"},
	"null in an array":               {changed(configurationBody, `:1}}`, `:[null]}}`), "InvalidConfigurationContent", "Value of Property or Tag cannot be null. Error in Property/Tag a (a[0])"},
	"a value that is too large":      {changed(configurationBody, `:1}}`, `:`+large(40000)+`}}`), "InvalidConfigurationContent", "'Properties.Desired' size should be less than 32768 bytes."},
	"a number that no twin can take": {changed(configurationBody, `:1}}`, `:4503599627370496}}`), "InvalidConfigurationContent", "Property or Tag value should be an integer from -4503599627370496 to 4503599627370495. Error in Property/Tag a"},
	"a priority that is a word":      {changed(configurationBody, `"priority":1`, `"priority":"one"`), "ArgumentInvalid", "priority must not be of type string"},
	"a priority that is a fraction":  {changed(configurationBody, `"priority":1`, `"priority":1.5`), "ArgumentInvalid", "priority must not be of type number 1.5"},
	"labels that are numbers":        {changed(configurationBody, `{`, `{"labels":{"a":1},`), "ArgumentInvalid", "labels must not be of type number"},
	"six metrics":                    {changed(configurationBody, `{"m":"SELECT deviceId FROM devices"}`, `{"1":"","2":"","3":"","4":"","5":"","6":""}`), "InvalidConfigurationCustomMetricsQuery", "a configuration has at most 5 metrics"},
	"a metric that is an object":     {changed(configurationBody, `"SELECT deviceId FROM devices"`, `{}`), "ArgumentInvalid", "metrics.queries must not be of type object"},
	"a condition of another type":    {changed(configurationBody, `"tags.a = 1"`, `1`), "ArgumentInvalid", "targetCondition must not be of type number"},
	"a condition that is too long":   {changed(configurationBody, `tags.a = 1`, strings.Repeat("x", 8193)), "InvalidConfigurationTargetCondition", "Invalid targetCondition. the query has 8193 characters, the most are 8192"},
	"modules for devices":            {changed(configurationBody, `tags.a = 1`, `from devices.modules where a = 1`), "InvalidConfigurationTargetCondition", "Invalid targetCondition. That of deviceContent and modulesContent must not begin with FROM"},
	"all for modules":                {changed(configurationBody, `"deviceContent":{"properties.desired.a":1}},"targetCondition":"tags.a = 1"`, `"moduleContent":{"properties.desired.a":1}},"targetCondition":"*"`), "InvalidConfigurationTargetCondition", "Invalid targetCondition. That of moduleContent must begin with 'from devices.modules where'"},
	"no edge module by that name":    {changed(configurationBody, `"deviceContent":{"properties.desired.a":1}`, `"modulesContent":{"a/b":{"properties.desired.a":1}}`), "InvalidConfigurationContent", "module id 'a/b' is not valid"},
	"no object of an edge module":    {changed(configurationBody, `"deviceContent":{"properties.desired.a":1}`, `"modulesContent":{"m":{"properties.desired":[]}}`), "InvalidConfigurationContent", "module 'm': properties.desired must be an object"},
	"a body that is huge":            {changed(configurationBody, `:1}}`, `:`+large(1100000)+`}}`), "MessageTooLarge", "the body must be at most 1048576 bytes"},
}

// badConditions are conditions of devices with a mistake, and what is said of
// it, which is the same wherever a condition stands.
var badConditions = map[string]string{
	"tags.a =":                               "Line 1:8 unexpected end of query, expected a value",
	"tags.a = 'open":                         "Line 1:9 the string has no closing quote",
	"tags.a == 1":                            "Line 1:7 unexpected '==', equality is '='",
	"tags.a IN ('x')":                        "Line 1:10 unexpected '(', expected '[' and the values",
	"tags.group = 1":                         "Line 1:5 unexpected 'group', expected a value (a reserved word is a name only in [[ ]])",
	"tags.a LIKE 'x%'":                       "Line 1:7 unexpected 'LIKE', the language has no LIKE",
	"(tags.a = 1":                            "Line 1:11 unexpected end of query, expected an operator or ')'",
	"tags.a = 1)":                            "Line 1:10 unexpected ')', expected an operator or the end of the condition",
	"tags.a = 1) or (tags.b = 2":             "Line 1:10 unexpected ')', expected an operator or the end of the condition",
	"SELECT * FROM devices WHERE tags.a = 1": "Line 1:0 unexpected 'SELECT', expected a value (a reserved word is a name only in [[ ]])",
	"WHERE tags.a = 1":                       "Line 1:0 unexpected 'WHERE', expected a value (a reserved word is a name only in [[ ]])",
	"LOWER(tags.a) = 'x'":                    "Line 1:0 there is no function 'LOWER'",
	"STARTSWITH(tags.a)":                     "Line 1:0 the number of arguments of STARTSWITH is 2, not 1",
	"tags.a = 1 ORDER BY tags.a":             "Line 1:11 unexpected 'ORDER', the language has no ORDER",
	"tags.a = 1 GROUP BY tags.a":             "Line 1:11 unexpected 'GROUP', expected an operator or the end of the condition",
	"tags.a = 1 -- one":                      "Line 1:11 unexpected '--', a comment is written /* */, and between two minus signs is a blank",
	"tags.a- 1 = 2":                          "Line 1:6 unexpected '-' at the end of a name, which is written in [[ ]] if the hyphen is part of it, and minus with blanks around it",
	"tags.a = 1; DROP":                       "Line 1:10 unexpected semicolon",
}

func TestBadJobsOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	for name, tt := range badJobs {
		t.Run(name, func(t *testing.T) {
			checkRefusal(t, h, "/jobs/v2/job-1", tt)
			h.Do(wiretest.Call{Method: "GET", Path: "/jobs/v2/job-1"}).Want(t, 404, "")
		})
	}
	checkNames(t, h, "/jobs/v2/", methodJobBody, "must be 1 to 128 of the letters, digits and", "job%201", "job%C3%A9", strings.Repeat("x", 129))
	h.Do(wiretest.Call{Method: "GET", Path: "/jobs/v2/query"}).Want(t, 200, "[]")
}

func TestBadConfigurationsOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	for name, tt := range badConfigurations {
		t.Run(name, func(t *testing.T) {
			checkRefusal(t, h, "/configurations/cfg", tt)
			h.Do(wiretest.Call{Method: "GET", Path: "/configurations/cfg"}).Want(t, 404, "")
		})
	}
	checkNames(t, h, "/configurations/", configurationBody, "must be 1 to 128 lower-case letters, digits and punctuation", "Cfg", "c%20g", "c%5Bg", "c%C3%A9", strings.Repeat("x", 129))
	h.Do(wiretest.Call{Method: "GET", Path: "/configurations"}).Want(t, 200, "[]")
}

// checkNames puts a good document under names that are refused with a text.
func checkNames(t *testing.T, h *wiretest.RESTHub, path, body, text string, names ...string) {
	t.Helper()
	for _, name := range names {
		if a := h.Do(wiretest.Call{Method: "PUT", Path: path + name, Body: body}); a.Status != 400 || !strings.Contains(a.Body, text) {
			t.Errorf("PUT %s%s: %d %s, want 400 with %q", path, name, a.Status, a.Body, text)
		}
	}
}

// checkRefusal puts a document, which must be refused.
func checkRefusal(t *testing.T, h *wiretest.RESTHub, path string, want refusal) {
	t.Helper()
	status := 400
	switch want.code {
	case "PreconditionFailed":
		status = 412
	case "MessageTooLarge":
		status = 413
	case "DeviceModelMaxPropertiesExceeded":
		status = 403
	}
	a := h.Do(wiretest.Call{Method: "PUT", Path: path, Body: want.body})
	if a.Status != status {
		t.Fatalf("answer is %d %s, want %d", a.Status, a.Body, status)
	}
	if got := a.Text(t, "Message"); got != "ErrorCode:"+want.code+";"+want.text {
		t.Errorf("Message is %s\nwant       ErrorCode:%s;%s", got, want.code, want.text)
	}
	if got := a.Header.Get("iothub-errorcode"); got != want.code {
		t.Errorf("iothub-errorcode is %q, want %q", got, want.code)
	}
}

// TestConditionsAreMeasuredInCharacters is about conditions of other alphabets,
// whose bytes are more than their characters.
func TestConditionsAreMeasuredInCharacters(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	condition := "deviceId = '" + strings.Repeat("é", 8192-len("deviceId = ''")) + "'"
	wiretest.CreateJob(t, h.Node, wiretest.TwinJob("longest", condition, `{"a":1}`))
	if job := wiretest.WaitJob(t, h.Node, "longest"); job.Status != jobs.Completed {
		t.Errorf("the job with the longest condition is %s: %s", job.Status, job.FailureReason)
	}
	if _, err := h.Jobs.Create(wiretest.TwinJob("longer", condition+" ", `{"a":1}`)); !errors.Is(err, hub.ErrPreconditionFailed) {
		t.Errorf("a job with a longer condition: %v, want %v", err, hub.ErrPreconditionFailed)
	}
}

func TestBadConditionsSayWhereTheMistakeIs(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	n := 0
	for condition, want := range badConditions {
		want = "SQL query parse failed due to following errors: " + want
		n++
		id := fmt.Sprint("job-", n)
		t.Run(condition, func(t *testing.T) {
			wiretest.CreateJob(t, h.Node, wiretest.TwinJob(id, condition, `{"a":1}`))
			job := wiretest.WaitJob(t, h.Node, id)
			if job.Status != jobs.Failed || job.FailureReason != want {
				t.Errorf("the job is %s: %s\nwant failed: %s", job.Status, job.FailureReason, want)
			}
			spec := wiretest.DeviceConfiguration("cfg", condition, 1, map[string]string{"a": "1"})
			if _, err := h.Configurations.Put(spec, hub.Match{}); err == nil || err.Error() != "InvalidConfigurationTargetCondition: Invalid targetCondition. "+want {
				t.Errorf("the configuration: %v", err)
			}
			spec = wiretest.EdgeDeployment(t, "cfg", condition, 1, wiretest.BaseDeployment())
			if _, err := h.Configurations.Put(spec, hub.Match{}); err == nil || err.Error() != "InvalidConfigurationTargetCondition: Invalid targetCondition. "+want {
				t.Errorf("the deployment: %v", err)
			}
			if got := h.Configurations.Test(condition, nil).Target; got != want {
				t.Errorf("the test of the condition says %s", got)
			}
		})
	}
}
