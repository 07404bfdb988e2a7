// Package all registers every plugin of this project. Import it for this side effect.
package all

import (
	_ "github.com/connect-personalize/connect-personalize/plugins/clean"
	_ "github.com/connect-personalize/connect-personalize/plugins/deadletter"
	_ "github.com/connect-personalize/connect-personalize/plugins/enrich"
	_ "github.com/connect-personalize/connect-personalize/plugins/eventcollector"
	_ "github.com/connect-personalize/connect-personalize/plugins/expect"
	_ "github.com/connect-personalize/connect-personalize/plugins/fitmodel"
	_ "github.com/connect-personalize/connect-personalize/plugins/kafkatopic"
	_ "github.com/connect-personalize/connect-personalize/plugins/profileapi"
	_ "github.com/connect-personalize/connect-personalize/plugins/profileapioutput"
	_ "github.com/connect-personalize/connect-personalize/plugins/profilechanges"
	_ "github.com/connect-personalize/connect-personalize/plugins/profiles"
	_ "github.com/connect-personalize/connect-personalize/plugins/syntheticshop"
	_ "github.com/connect-personalize/connect-personalize/plugins/updateprofile"
	_ "github.com/connect-personalize/connect-personalize/plugins/validateevent"
)
