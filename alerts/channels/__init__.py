"""Ways an alert reaches somebody: one file each, all behind `alerts.channels.channel.Channel`."""
